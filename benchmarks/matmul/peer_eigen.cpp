#include "peers.hpp"

#include <Eigen/Core>

#include <fmt/format.h>

namespace sinq_bench {

namespace {

using rows_of_floats = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using part_of_floats = Eigen::Map<rows_of_floats, Eigen::Unaligned, Eigen::OuterStride<>>;

/// y = x W^T for outputs [begin, end).
void multiply_rows(const float* w, const tokens_io& io, std::size_t tokens, std::size_t begin, std::size_t end) {
  const auto index = [](std::size_t n) { return static_cast<Eigen::Index>(n); };
  const std::size_t cols = io.x.cols();
  const Eigen::Map<const rows_of_floats> weights{w + begin * cols, index(end - begin), index(cols)};
  const Eigen::Map<const rows_of_floats> x{io.x.data(), index(tokens), index(cols)};
  if (tokens == 1) {
    Eigen::Map<Eigen::VectorXf>{io.y.data() + begin, index(end - begin)}.noalias() = weights * x.row(0).transpose();
    return;
  }
  part_of_floats y{io.y.data() + begin, index(tokens), index(end - begin), Eigen::OuterStride<>{index(io.y.cols())}};
  y.noalias() = x * weights.transpose();
}

} // namespace

/// Eigen's own threads do not share out a product of a matrix and a vector, so each of ours gets a part of the rows.
void add_eigen(const peer_input& in, std::vector<contender>& to) {
  const auto turn = std::make_shared<rotation>(in.weights.count);
  const auto multiply = [in, turn](std::size_t tokens, std::size_t count) {
    const float* const w = in.weights.matrix(turn->next());
    in.threads.of(count).run(count, [&](std::size_t n) {
      const std::size_t rows = in.weights.rows;
      multiply_rows(w, in.io, tokens, rows * n / count, rows * (n + 1) / count);
    });
  };
  to.push_back(f32_peer(in, fmt::format("Eigen ({})", Eigen::SimdInstructionSetsInUse()), multiply));
}

} // namespace sinq_bench
