#include "instances.hpp"

template void instances::use(const sinq::cuda::device_matrix&, const __half*, void*, sinq::cuda::workspace&);
template void instances::use(const sinq::cuda::device_matrix&, const __nv_bfloat16*, void*, sinq::cuda::workspace&);
template sinq::result<void> sinq::cuda::dequantize(const device_matrix&, device_view<float>, cudaStream_t);
template sinq::result<sinq::cuda::device_matrix> sinq::cuda::quantize(device_view<const float>, const quantize_options&,
                                                                      workspace&, cudaStream_t);
