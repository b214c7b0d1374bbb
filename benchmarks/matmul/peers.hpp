#pragma once

#include "weights.hpp"

namespace sinq_bench {

/// What peers multiply by: a weight restored to floats, in its turns.
struct dense_weights {
  dense_weights(const sinq::packed_matrix& packed, std::size_t bytes);

  [[nodiscard]] const float* matrix(std::size_t n) const {
    return reinterpret_cast<const float*>(memory.span().data()) + n * rows * cols;
  }

  std::size_t rows, cols, count;
  huge_memory memory;
};

/// What a peer is given; all of it outlives the peer.
struct peer_input {
  const dense_weights& weights;
  const tokens_io& io;
  pools& threads;
  std::shared_ptr<const expected_rows> expected;
};

/// A peer that multiplies by the floats themselves.
[[nodiscard]] contender f32_peer(const peer_input& in, std::string name,
                                 std::function<void(std::size_t tokens, std::size_t threads)> multiply);

void add_eigen(const peer_input& in, std::vector<contender>& to);
void add_openblas(const peer_input& in, std::vector<contender>& to);
void add_onednn(const peer_input& in, std::vector<contender>& to);

/// Libraries that this program is built with, to compare with; those that are not there are named on standard output.
[[nodiscard]] std::vector<contender> peers(const peer_input& in);

} // namespace sinq_bench
