#pragma once

/// The part of CUDA's runtime that launchers call, on the CPU: device memory is memory of the host, streams do
/// everything at once. A test can make the n-th call fail, to see that every call is checked, and count what is not
/// given back.

#include "launch.hpp"

#include <cstdlib>
#include <map>
#include <optional>
#include <set>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
using cudaStream_t = struct sinq_emulation_stream*;
inline constexpr unsigned cudaStreamDefault = 0;
inline constexpr unsigned cudaStreamNonBlocking = 1;

namespace sinq_emulation {

/// The device that launchers see, and what they did with it. A test changes it through device().
struct device_state {
  int count = 1;
  int compute_capability = 80; ///< 10 major + minor
  int multiprocessors = 4;
  int shared_bytes = 227 << 10;           ///< that a block may ask for
  std::optional<int> calls_until_failure; ///< 0: the next call fails, and those after it do not
  int calls = 0;
  cudaError_t last_error = cudaSuccess;
  std::map<void*, std::size_t> allocated; ///< and how many bytes
  std::set<cudaStream_t> streams;
};
[[nodiscard]] inline device_state& device() {
  static device_state state;
  return state;
}

namespace detail {

/// Counts a call, and makes it the one that fails if the test wants that.
[[nodiscard]] inline cudaError_t counted(cudaError_t outcome = cudaSuccess) {
  device_state& state = device();
  ++state.calls;
  if (state.count == 0) outcome = cudaErrorNoDevice;
  if (state.calls_until_failure && (*state.calls_until_failure)-- == 0) {
    state.calls_until_failure.reset();
    outcome = cudaErrorLaunchFailure;
  }
  if (outcome != cudaSuccess) state.last_error = outcome;
  return outcome;
}

} // namespace detail

/// launch(), as a launcher does it: what is wrong with its shape comes back from cudaGetLastError.
template <class Kernel>
void launch_on_stream(const launch_shape& shape, cudaStream_t, Kernel&& kernel) {
  const auto blocks = std::uint64_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  const auto threads = std::uint64_t{shape.block.x} * shape.block.y * shape.block.z;
  const bool possible = blocks > 0 && threads > 0 && threads <= 1024 && shape.grid.y < 65536 && shape.grid.z < 65536;
  if (detail::counted(possible ? cudaSuccess : cudaErrorInvalidConfiguration) == cudaSuccess)
    launch(shape, std::forward<Kernel>(kernel));
}

} // namespace sinq_emulation

inline const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
  case cudaSuccess: return "cudaSuccess";
  case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
  case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
  case cudaErrorNoDevice: return "cudaErrorNoDevice";
  case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
  case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
  }
  return "unknown error";
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return cudaGetErrorName(error);
}
inline cudaError_t cudaGetLastError() {
  const cudaError_t own = sinq_emulation::detail::counted();
  const cudaError_t last = std::exchange(sinq_emulation::device().last_error, cudaSuccess);
  return last != cudaSuccess ? last : own;
}
inline cudaError_t cudaPeekAtLastError() {
  return sinq_emulation::device().last_error;
}

inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = sinq_emulation::device().count;
  return sinq_emulation::detail::counted();
}
inline cudaError_t cudaGetDevice(int* number) {
  *number = 0;
  return sinq_emulation::detail::counted();
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int number) {
  const auto& state = sinq_emulation::device();
  if (number != 0) return sinq_emulation::detail::counted(cudaErrorInvalidValue);
  switch (attribute) {
  case cudaDevAttrMultiProcessorCount: *value = state.multiprocessors; break;
  case cudaDevAttrComputeCapabilityMajor: *value = state.compute_capability / 10; break;
  case cudaDevAttrComputeCapabilityMinor: *value = state.compute_capability % 10; break;
  case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 228 << 10; break;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = state.shared_bytes; break;
  }
  return sinq_emulation::detail::counted();
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return sinq_emulation::detail::counted();
}

/// Device memory begins as 0xff, which is NaN.
template <class T>
cudaError_t cudaMalloc(T** memory, std::size_t bytes) {
  const cudaError_t outcome = sinq_emulation::detail::counted();
  if (outcome != cudaSuccess) return outcome;
  constexpr std::size_t alignment = 256;
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* made = std::aligned_alloc(alignment, rounded);
  if (made == nullptr) return cudaErrorMemoryAllocation;
  std::memset(made, sinq_emulation::detail::untouched, rounded);
  sinq_emulation::forbid_memory(static_cast<char*>(made) + bytes, rounded - bytes);
  sinq_emulation::device().allocated.emplace(made, bytes);
  *memory = static_cast<T*>(made);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) return sinq_emulation::detail::counted();
  auto& allocated = sinq_emulation::device().allocated;
  const auto found = allocated.find(memory);
  if (found == allocated.end()) return sinq_emulation::detail::counted(cudaErrorInvalidValue);
  std::free(found->first);
  allocated.erase(found);
  return sinq_emulation::detail::counted();
}
template <class T>
cudaError_t cudaMallocAsync(T** memory, std::size_t bytes, cudaStream_t) {
  return cudaMalloc(memory, bytes);
}
inline cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
  return cudaFree(memory);
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t = nullptr) {
  const cudaError_t outcome = sinq_emulation::detail::counted();
  if (outcome == cudaSuccess && bytes > 0) std::memcpy(to, from, bytes);
  return outcome;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind);
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t = nullptr) {
  const cudaError_t outcome = sinq_emulation::detail::counted();
  if (outcome == cudaSuccess && bytes > 0) std::memset(to, value, bytes);
  return outcome;
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const cudaError_t outcome = sinq_emulation::detail::counted();
  if (outcome != cudaSuccess) return outcome;
  *stream = reinterpret_cast<cudaStream_t>(new char);
  sinq_emulation::device().streams.insert(*stream);
  return outcome;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (sinq_emulation::device().streams.erase(stream) == 0)
    return sinq_emulation::detail::counted(cudaErrorInvalidValue);
  delete reinterpret_cast<char*>(stream);
  return sinq_emulation::detail::counted();
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return sinq_emulation::detail::counted();
}
inline cudaError_t cudaDeviceSynchronize() {
  return sinq_emulation::detail::counted();
}
