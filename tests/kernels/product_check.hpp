#pragma once

/// Multiplies a weight in every way that is here, and holds each against its definition.

#include "kernels/products.hpp"
#include "support/catch.hpp"
#include "support/each_isa.hpp"
#include "support/random_quantized.hpp"

#include <sinq/core/parallel.hpp>

#include <array>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace sinq_test {

/// A format, for whoever has to find out why it failed.
[[nodiscard]] inline std::string described(const sinq::matrix_format& f) {
  constexpr std::array grids{"uniform", "nf4", "nf3", "custom"};
  std::ostringstream text;
  text << f.bits << " bits " << grids[static_cast<std::size_t>(f.grid)] << (f.has_zero ? "" : " without zero points")
       << ", N " << f.rows << ", K " << f.cols << ", groups of " << f.group_size << ", tiles of " << f.tile_height()
       << " rows, scales of " << f.scale_bits << " and zero points of " << f.zero_bits
       << " bits (0: " << to_string(storage(f.aux)) << "), t " << f.has_col_scale << ", rotation " << f.rotation;
  return text.str();
}

/// Checks formats with the same tokens: on every instruction set, in both precisions, for several numbers of tokens,
/// against double and against the scalar kernels, with one thread and two, which must give the same bits.
class product_check {
public:
  /// @param counts  numbers of tokens, which ascend
  product_check(std::size_t cols, std::vector<std::size_t> counts)
      : x_{tokens(counts.back(), cols)}, counts_{std::move(counts)} {}

  void operator()(const sinq::matrix_format& f) {
    INFO(described(f));
    const sinq::quantized_matrix q = random_quantized(f, f.rows + f.cols);
    const sinq::panel_matrix w = panels(q);
    const product_oracle oracle{q, x_};
    const bool has_bytes = byte_step(f) != 0;
    exact_ = {oracle.exact(), exact_tolerance(f)};
    if (has_bytes) bytes_ = {oracle.bytes(), bytes_tolerance(f)};
    // with scales for each 32 columns all that goes on tiles goes in bf16
    const std::size_t fewest_bf16_tokens = byte_step(f) == 32 ? 9 : 17;
    if (has_bytes && sinq::is_here(sinq::isa::amx) && counts_.back() >= fewest_bf16_tokens)
      bf16_ = {oracle.bf16(), bf16_tolerance(f)};
    CHECK(exact_.tolerance <= 1e-5); // as matmul promises
    for (const sinq::isa isa : isas_here()) {
      const on_isa here{isa};
      for (const sinq::precision precision : {sinq::precision::exact, sinq::precision::int8})
        for (const std::size_t count : counts_) {
          const bool as_bytes = has_bytes && precision == sinq::precision::int8;
          const bool as_bf16 = as_bytes && isa == sinq::isa::amx && count >= fewest_bf16_tokens;
          check(w, precision, count, as_bf16 ? bf16_ : as_bytes ? bytes_ : exact_);
        }
    }
  }

  /// How many products have been compared.
  [[nodiscard]] std::size_t compared() const { return compared_; }

private:
  struct expectation {
    products of_all;
    double tolerance = 0;
  };

  void check(const sinq::panel_matrix& w, sinq::precision precision, std::size_t count, const expectation& expected) {
    const auto agrees = [&](const verdict& v) {
      if (!v)
        FAIL_CHECK(to_string(sinq::current_isa())
                   << (precision == sinq::precision::exact ? " exact, M " : " int8, M ") << count << ": " << v);
    };
    const matrix y = multiplied(w, x_, {.precision = precision, .threads = &one_}, count);
    agrees(close_to_products(y, expected.of_all, expected.tolerance));
    if (sinq::current_isa() == sinq::isa::scalar)
      scalar_.insert_or_assign({precision, count}, y);
    else if (&expected != &bf16_) // which the scalar kernels do not have; each of the two may be off by the tolerance
      agrees(close_to_each_other(y, scalar_.at({precision, count}), expected.of_all, 2 * expected.tolerance));
    const matrix again = multiplied(w, x_, {.precision = precision, .threads = &two_}, count);
    if (std::memcmp(y.values.data(), again.values.data(), y.values.size() * sizeof(float)) != 0)
      agrees({false, "two threads do not give the bits of one"});
    compared_ += 2;
  }

  matrix x_;
  std::vector<std::size_t> counts_;
  expectation exact_, bytes_, bf16_;
  std::map<std::pair<sinq::precision, std::size_t>, matrix> scalar_; ///< what the scalar kernels gave
  sinq::serial_executor one_;
  sinq::thread_pool two_{2};
  std::size_t compared_ = 0;
};

} // namespace sinq_test
