#pragma once

#include "model.hpp"

#include <sinq/math/input_moments.hpp>

namespace engine {

/// The linear layers of a decoder, by name, as `model.layers.0.self_attn.q_proj`.
[[nodiscard]] std::vector<std::string> linear_layers(const model_config& config);

/// Walks with some texts through a decoder and measures the inputs x of its linear layers, stop by stop: those of q, k
/// and v; of o; of gate and up; of down; then of the next layer. What is replaced at a stop is what the texts go on
/// through. Memory holds the vectors of all tokens and the moments of one stop.
class calibration_walk {
public:
  /// @param windows  [windows][tokens], all as long, one or more. @pre m outlives the walk
  /// @errors         errc::invalid_argument (a token that is not in the vocabulary)
  [[nodiscard]] static sinq::result<calibration_walk> begin(const model& m, std::span<const std::vector<int>> windows);

  /// Goes to the next stop; false behind the last. @pre measured here
  [[nodiscard]] bool next();
  /// The layers that share the inputs of this stop, named as by linear_layers.
  [[nodiscard]] std::vector<std::string> layers() const;
  /// Means over all tokens of all windows: E[x_j^2], E|x_j| and, if `full`, E[x x^T]. @pre once at each stop
  /// @param progress  told the share of windows that are done
  /// @errors          those of matmul, errc::cancelled
  /// Numerics: products of a window in f32, sums over windows in f64.
  [[nodiscard]] sinq::result<sinq::input_moments> measure(bool full, const sinq::progress_callback& progress = {});
  /// Gives a layer other weights. @param layer  its place in layers(). @pre measured here; a weight of the same shape
  void replace(std::size_t layer, sinq::panel_matrix weight);

private:
  calibration_walk(const model& m, std::size_t length);
  [[nodiscard]] sinq::result<void> run_up_to(layer_input input, sinq::matrix_view<float> x,
                                             const input_observer& observe);

  const model& m_;
  std::vector<float_buffer> states_; ///< by window [tokens x hidden]
  decoder run_;
  kv_cache cache_;       ///< of one layer and window
  float_buffer scratch_; ///< [tokens x hidden]
  std::size_t stops_ = 0;
  layer_weights before_, here_; ///< of the layer before, which still has to feed forward, and of this one
};

/// Takes what is known of the inputs of a linear layer, by its name.
using moments_sink = std::function<sinq::result<void>(const std::string& name, const sinq::input_moments&)>;

/// The moments of the inputs of all linear layers of the model as it is.
/// @param progress  told the share of stops that are done
/// @errors          those of calibration_walk and of the sink
[[nodiscard]] sinq::result<void> calibrate(const model& m, std::span<const std::vector<int>> windows, bool full,
                                           const moments_sink& sink, const sinq::progress_callback& progress = {});

/// Texts that the model writes itself at temperature 1, without an end: what it expects of its inputs, without any
/// data.
/// @param first  tokens to begin with, one for each text
/// @return       [first.size()][length]
[[nodiscard]] sinq::result<std::vector<std::vector<int>>> own_texts(const model& m, std::span<const int> first,
                                                                    std::size_t length, std::uint64_t seed,
                                                                    const sinq::progress_callback& progress = {});

} // namespace engine
