#pragma once

#include "decoder.hpp"

namespace engine {

/// A decoder-only model, ready to run.
class model {
public:
  /// Reads a directory: `config.json` and the weights, floats or what `sinq quantize` wrote.
  /// @errors  those of read_config, checkpoint::open and load_weights; names the directory
  [[nodiscard]] static sinq::result<model> open(const std::filesystem::path& directory, const compute& with = {},
                                                const layer_quantizer& quantize = {});

  [[nodiscard]] const model_config& config() const { return config_; }
  [[nodiscard]] const model_weights& weights() const { return weights_; }
  [[nodiscard]] const compute& with() const { return with_; }

  /// Runs tokens that follow those in the cache, some at a time.
  /// @param logits  [n x vocabulary], of the last n tokens, n <= tokens.size()
  /// @errors  errc::invalid_argument (a token that is not in the vocabulary, more tokens than the cache has room for;
  ///          the cache stays as it was), those of matmul
  [[nodiscard]] sinq::result<void> forward(std::span<const int> tokens, kv_cache& cache,
                                           sinq::matrix_view<float> logits) const;

  /// Runs the next token of each of several sequences, which are all as long.
  /// @param tokens, caches  one for each sequence. @param logits  [sequences x vocabulary]
  /// @errors                those of forward
  [[nodiscard]] sinq::result<void> step(std::span<const int> tokens, std::span<kv_cache> caches,
                                        sinq::matrix_view<float> logits) const;

  /// @errors  errc::invalid_argument (a token that is not in the vocabulary)
  [[nodiscard]] sinq::result<void> check(std::span<const int> tokens) const;
  /// The vectors of tokens, [tokens x hidden]. @pre every token is in the vocabulary
  void embed(std::span<const int> tokens, sinq::matrix_view<float> x) const;

private:
  model(model_config config, model_weights weights, const compute& with)
      : config_{std::move(config)}, weights_{std::move(weights)}, with_{with} {}

  [[nodiscard]] sinq::result<void> check_room(std::span<const int> tokens, std::span<const kv_cache> caches) const;
  /// All layers, for as many tokens of each sequence, one sequence after the other.
  [[nodiscard]] sinq::result<void> run(std::span<const int> tokens, std::span<kv_cache> caches,
                                       sinq::matrix_view<float> x) const;
  [[nodiscard]] sinq::result<void> output(sinq::matrix_view<const float> x, sinq::matrix_view<float> logits) const;

  model_config config_;
  model_weights weights_;
  compute with_;
};

} // namespace engine
