#include "peers.hpp"

#include <fmt/format.h>

#include <cstring>
#include <utility>

namespace sinq_bench {

dense_weights::dense_weights(const sinq::packed_matrix& packed, std::size_t bytes)
    : rows{packed.format.rows}, cols{packed.format.cols}, count{matrices_in(bytes, rows * cols * sizeof(float))},
      memory{count * rows * cols * sizeof(float)} {
  float* const first = reinterpret_cast<float*>(memory.span().data());
  sinq::dequantize(packed, {first, rows, cols});
  for (std::size_t n = 1; n < count; ++n) std::memcpy(first + n * rows * cols, first, rows * cols * sizeof(float));
}

contender f32_peer(const peer_input& in, std::string name,
                   std::function<void(std::size_t tokens, std::size_t threads)> multiply) {
  return {.name = std::move(name),
          .weights = "f32",
          .weight_bytes = static_cast<double>(in.weights.rows * in.weights.cols * sizeof(float)),
          .kind = arithmetic::f32,
          .worst_error = 1e-4,
          .expected = in.expected,
          .multiply = std::move(multiply)};
}

std::vector<contender> peers(const peer_input& in) {
  std::vector<contender> found;
  add_eigen(in, found);
#ifdef SINQ_BENCH_OPENBLAS
  add_openblas(in, found);
#else
  fmt::print("without OpenBLAS: CMake found no libopenblas-dev\n");
#endif
#ifdef SINQ_BENCH_ONEDNN
  add_onednn(in, found);
#else
  fmt::print("without oneDNN: CMake found no libdnnl-dev\n");
#endif
  return found;
}

} // namespace sinq_bench
