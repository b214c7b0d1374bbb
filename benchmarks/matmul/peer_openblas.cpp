#ifdef SINQ_BENCH_OPENBLAS

#include "peers.hpp"

#include <cblas.h>

#include <fmt/format.h>

namespace sinq_bench {

void add_openblas(const peer_input& in, std::vector<contender>& to) {
  const auto turn = std::make_shared<rotation>(in.weights.count);
  const auto multiply = [in, turn](std::size_t tokens, std::size_t threads) {
    const auto m = static_cast<blasint>(tokens);
    const auto n = static_cast<blasint>(in.weights.rows);
    const auto k = static_cast<blasint>(in.weights.cols);
    const float* const w = in.weights.matrix(turn->next());
    openblas_set_num_threads(static_cast<int>(threads));
    if (tokens == 1)
      cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1.0f, w, k, in.io.x.data(), 1, 0.0f, in.io.y.data(), 1);
    else
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0f, in.io.x.data(), k, w, k, 0.0f, in.io.y.data(),
                  n);
  };
  to.push_back(f32_peer(in, fmt::format("OpenBLAS ({})", openblas_get_corename()), multiply));
}

} // namespace sinq_bench

#endif
