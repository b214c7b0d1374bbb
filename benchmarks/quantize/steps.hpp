#pragma once

#include "measure/huge_memory.hpp"
#include "measure/rounds.hpp"

#include <sinq/pack/pack.hpp>
#include <sinq/pack/panels.hpp>
#include <sinq/pack/quantize_packed.hpp>

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sinq_bench {

/// Weights to quantize: matrices in huge pages, with heavy tails as real ones have them, in turns. A few hundred rows
/// are random and come again further down.
class source_weights {
public:
  /// @param bytes  that the matrices take together, at least
  source_weights(std::size_t rows, std::size_t cols, sinq::dtype type, std::size_t bytes);

  [[nodiscard]] std::size_t count() const { return count_; }
  [[nodiscard]] std::size_t matrix_bytes() const { return rows_ * cols_ * size_bytes(type_); }
  [[nodiscard]] double weights() const { return static_cast<double>(rows_ * cols_); }
  [[nodiscard]] sinq::weight_view operator[](std::size_t n) const {
    return {memory_.span().data() + n * matrix_bytes(), type_, rows_, cols_};
  }

private:
  std::size_t rows_, cols_;
  sinq::dtype type_;
  std::size_t count_;
  huge_memory memory_;
};

/// A method, and whether its result is refined.
struct quantize_trial {
  std::string name; ///< "METHOD", as the method comes from its paper, or "METHOD+weights", refined
  sinq::quantize_options options;
};

/// @errors  errc::invalid_argument (no such method), those of check_options
[[nodiscard]] sinq::result<quantize_trial> make_trial(const std::string& name, int bits, std::size_t group_size);

/// What is timed of a trial; `both` is quantize_packed.
enum class step : std::uint8_t { quantize, pack, both, dequantize, to_panels, to_device_layout };
inline constexpr std::array<std::string_view, 6> step_names{"quantize",   "pack",      "both",
                                                            "dequantize", "to_panels", "to_device_layout"};

/// What the steps of a trial begin with: as many matrices as there are sources, quantized, and packed.
struct trial_inputs {
  std::vector<sinq::quantized_matrix> quantized;
  std::vector<sinq::packed_matrix> packed;
  double error = 0; ///< relative, of the packed matrix
};

/// @errors  those of the library
[[nodiscard]] sinq::result<trial_inputs> prepare(const quantize_trial& trial, const source_weights& from);

/// A step on the next matrix at each call; its work is the matrix's weights. All arguments are borrowed.
/// @param out  room for a matrix of floats
[[nodiscard]] subject timed_step(step what, const quantize_trial& trial, const source_weights& from,
                                 const trial_inputs& inputs, const huge_memory& out, sinq::executor& threads);

} // namespace sinq_bench
