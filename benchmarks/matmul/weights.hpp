#pragma once

#include "contender.hpp"

#include "measure/huge_memory.hpp"
#include "measure/program.hpp"

#include <sinq/kernels/matmul.hpp>

#include <string>
#include <vector>

namespace sinq_bench {

/// Which weights are multiplied.
struct weight_choice {
  std::size_t rows = 4096, cols = 4096;
  sinq::grid grid = sinq::grid::uniform;
  int bits = 4;
  std::size_t group_size = 64;
  std::string aux = "f16"; ///< or a preset's name, which then settles bits and group size

  /// The format that the method `sinq` gives such a matrix.
  [[nodiscard]] sinq::matrix_format format() const;
};

/// Matrices of one format, each in huge pages of its own, so many that none is in a cache when its turn comes again.
/// All have the same random contents: codes, scales, zero points and t, none of them zero throughout.
struct weight_set {
  std::string name;
  sinq::packed_matrix packed;
  std::vector<sinq::panel_matrix> panels;
};

[[nodiscard]] sinq::result<weight_set> make_weights(const weight_choice& choice, std::size_t bytes);

/// What tokens are multiplied from and into.
struct tokens_io {
  sinq::matrix_view<const float> x; ///< [M x K]
  sinq::matrix_view<float> y;       ///< [M x N]
};

/// Our kernel of that precision on these weights. @param weights, threads  borrowed
[[nodiscard]] contender ours(const weight_set& weights, sinq::precision precision, const tokens_io& io, pools& threads,
                             std::shared_ptr<const expected_rows> expected);

} // namespace sinq_bench
