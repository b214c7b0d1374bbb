#pragma once

/// Everything of sinq::cuda that a program compiled for the device uses. cuda/convert.hpp, for programs of the host,
/// arranges a packed_matrix for upload and reads one back.

#include "cuda/device_matrix.hpp"
#include "cuda/launch_dequantize.hpp"
#include "cuda/launch_quantize.hpp"
#include "cuda/matmul.hpp"
#include "cuda/runtime.hpp"
