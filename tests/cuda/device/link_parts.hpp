#pragma once

#include <sinq/cuda.hpp>

#include <algorithm>
#include <vector>

namespace link_parts {

/// Quantizes on the device and gets the values back, in each translation unit for itself.
inline sinq::result<std::vector<float>> quantize_and_back() {
  constexpr std::size_t rows = 40, cols = 96;
  std::vector<float> values(rows * cols);
  for (std::size_t n = 0; n < values.size(); ++n) values[n] = static_cast<float>(n * n % 101) - 50.0f;
  const auto from = sinq::cuda::device_buffer<float>::copy_of(values);
  if (!from) return from.error();
  auto work = sinq::cuda::workspace::make();
  if (!work) return work.error();
  const auto q =
      sinq::cuda::quantize(sinq::cuda::device_view<const float>{from->data(), rows, cols}, {.bits = 8}, *work);
  if (!q) return q.error();
  auto to = sinq::cuda::device_buffer<float>::make(values.size());
  if (!to) return to.error();
  if (auto done = sinq::cuda::dequantize(*q, sinq::cuda::device_view<float>{to->data(), rows, cols}); !done)
    return done.error();
  std::vector<float> back(values.size());
  if (auto done = to->download(back); !done) return done.error();
  if (auto done = sinq::cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); !done) return done.error();
  return back;
}

sinq::result<std::vector<float>> in_other_unit();

} // namespace link_parts
