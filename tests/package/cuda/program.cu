/// What a project that uses sinq::cuda might hold. Without a device, the library says so.

#include <sinq/cuda.hpp>

#include <cstdio>
#include <vector>

namespace {

sinq::result<float> first_weight_back() {
  const std::vector<float> weights(32 * 128, 0.25f);
  const auto w = sinq::cuda::device_buffer<float>::copy_of(weights);
  if (!w) return w.error();
  auto work = sinq::cuda::workspace::make();
  if (!work) return work.error();
  const auto q = sinq::cuda::quantize(sinq::cuda::device_view<const float>{w->data(), 32, 128}, {.bits = 8}, *work);
  if (!q) return q.error();
  auto to = sinq::cuda::device_buffer<float>::make(weights.size());
  if (!to) return to.error();
  if (auto done = sinq::cuda::dequantize(*q, sinq::cuda::device_view<float>{to->data(), 32, 128}); !done)
    return done.error();
  std::vector<float> back(weights.size());
  if (auto done = to->download(back); !done) return done.error();
  return back[0];
}

} // namespace

int main() {
  const auto weight = first_weight_back();
  if (!weight) return std::printf("no device to quantize on: %s\n", weight.error().message.c_str()), 0;
  std::printf("0.25 came back as %g\n", static_cast<double>(*weight));
  return *weight > 0.2f && *weight < 0.3f ? 0 : 1;
}
