#pragma once

#include "../core/error.hpp"

#include <cstddef>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#if !defined(__CUDACC__) && defined(SINQ_CUDA_EMULATION)
#include SINQ_CUDA_EMULATION
#else
#include <cuda_runtime.h>
#endif

namespace sinq::cuda {

/// What a call of CUDA's runtime said, as a result. @errors errc::device (the call, and CUDA's sentence)
[[nodiscard]] inline result<void> check(cudaError_t status, std::string_view call) {
  if (status == cudaSuccess) return {};
  return make_error(errc::device, call, ": ", cudaGetErrorString(status));
}

/// What launchers have to know of the current device.
struct device_info {
  int number = 0;
  int compute_capability = 0; ///< 10 major + minor, as in sm_90
  int multiprocessors = 0;
  std::size_t shared_bytes = 0; ///< that a block may ask for

  /// Asks the runtime. @errors errc::device, as where there is no device
  [[nodiscard]] static result<device_info> current() {
    device_info info;
    if (result<void> ok = check(cudaGetDevice(&info.number), "cudaGetDevice"); !ok) return ok.error();
    int major = 0, minor = 0, shared = 0;
    for (const auto& [value, attribute] : {std::pair{&major, cudaDevAttrComputeCapabilityMajor},
                                           {&minor, cudaDevAttrComputeCapabilityMinor},
                                           {&info.multiprocessors, cudaDevAttrMultiProcessorCount},
                                           {&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin}})
      if (result<void> ok = check(cudaDeviceGetAttribute(value, attribute, info.number), "cudaDeviceGetAttribute"); !ok)
        return ok.error();
    info.compute_capability = 10 * major + minor;
    info.shared_bytes = static_cast<std::size_t>(shared);
    return info;
  }
};

/// A stream of work, destroyed with this object. Launchers take any cudaStream_t, the default stream too.
class stream {
public:
  /// A stream that does not wait for the default stream. @errors errc::device
  [[nodiscard]] static result<stream> make() {
    cudaStream_t handle = nullptr;
    if (result<void> ok = check(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "cudaStreamCreate"); !ok)
      return ok.error();
    return stream{handle};
  }
  stream(stream&& from) noexcept : handle_{std::exchange(from.handle_, nullptr)} {}
  stream& operator=(stream&& from) noexcept {
    std::swap(handle_, from.handle_);
    return *this;
  }
  ~stream() {
    if (handle_ != nullptr) static_cast<void>(cudaStreamDestroy(handle_));
  }

  operator cudaStream_t() const { return handle_; }
  /// Waits until all is done. @errors errc::device, of the work too
  [[nodiscard]] result<void> synchronize() const {
    return check(cudaStreamSynchronize(handle_), "cudaStreamSynchronize");
  }

private:
  explicit stream(cudaStream_t handle) : handle_{handle} {}
  cudaStream_t handle_ = nullptr;
};

/// An array in the memory of the device, freed with this object.
template <class T>
class device_buffer {
  static_assert(std::is_trivially_copyable_v<T>);

public:
  device_buffer() = default;
  /// @errors  errc::device (out of memory)
  [[nodiscard]] static result<device_buffer> make(std::size_t size) {
    device_buffer made;
    if (size == 0) return result<device_buffer>{std::move(made)};
    void* memory = nullptr;
    if (result<void> ok = check(cudaMalloc(&memory, size * sizeof(T)), "cudaMalloc"); !ok) return ok.error();
    made.data_ = static_cast<T*>(memory);
    made.size_ = size;
    return result<device_buffer>{std::move(made)};
  }
  /// A buffer with a copy of some values; they may go once the stream has come this far.
  [[nodiscard]] static result<device_buffer> copy_of(std::span<const T> values, cudaStream_t on = nullptr) {
    result<device_buffer> made = make(values.size());
    if (!made) return made;
    if (result<void> ok = made->upload(values, on); !ok) return ok.error();
    return made;
  }
  device_buffer(device_buffer&& from) noexcept
      : data_{std::exchange(from.data_, nullptr)}, size_{std::exchange(from.size_, std::size_t{0})} {}
  device_buffer& operator=(device_buffer&& from) noexcept {
    std::swap(data_, from.data_);
    std::swap(size_, from.size_);
    return *this;
  }
  ~device_buffer() {
    if (data_ != nullptr) static_cast<void>(cudaFree(data_));
  }

  [[nodiscard]] T* data() { return data_; }
  [[nodiscard]] const T* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }

  /// Copies from the host, in the order of the stream. @errors errc::invalid_argument (sizes), errc::device
  [[nodiscard]] result<void> upload(std::span<const T> from, cudaStream_t on = nullptr) {
    if (from.size() > size_)
      return make_error(errc::invalid_argument, "device_buffer: ", from.size(), " elements into ", size_);
    if (from.empty()) return {};
    return check(cudaMemcpyAsync(data_, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, on), "cudaMemcpyAsync");
  }
  /// Copies to the host; the values are there once the stream has come this far.
  [[nodiscard]] result<void> download(std::span<T> to, cudaStream_t on = nullptr) const {
    if (to.size() > size_)
      return make_error(errc::invalid_argument, "device_buffer: ", to.size(), " elements from ", size_);
    if (to.empty()) return {};
    return check(cudaMemcpyAsync(to.data(), data_, to.size_bytes(), cudaMemcpyDeviceToHost, on), "cudaMemcpyAsync");
  }

private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// A borrowed row-major matrix in the memory of the device: element (i, j) is data[i * stride + j].
template <class T>
struct device_view {
  T* data = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::size_t stride = 0;

  constexpr device_view() = default;
  constexpr device_view(T* from, std::size_t n, std::size_t k, std::size_t row_stride)
      : data{from}, rows{n}, cols{k}, stride{row_stride} {}
  constexpr device_view(T* from, std::size_t n, std::size_t k) : device_view{from, n, k, k} {}
  /// A view of const elements from one of mutable elements.
  template <class U>
  requires(std::is_same_v<const U, T>) constexpr device_view(const device_view<U>& other)
      : device_view{other.data, other.rows, other.cols, other.stride} {}

  /// Whether `count` elements of every row, from a multiple of `count` on, begin on as many bytes.
  [[nodiscard]] bool is_aligned(std::size_t count) const {
    return reinterpret_cast<std::uintptr_t>(data) % (count * sizeof(T)) == 0 && stride % count == 0;
  }
};

namespace detail {

/// Where a kernel runs.
struct launch_shape {
  dim3 grid;
  unsigned threads;
  std::size_t shared_bytes = 0;
  bool overlaps = false; ///< may begin before the kernel before it ends: it waits by itself (sm_90 and later)
};

/// Launches a kernel, and asks whether that went well.
template <class Args>
[[nodiscard]] result<void> launch(void (*kernel)(Args), const launch_shape& shape, const Args& args, cudaStream_t on) {
  constexpr std::size_t without_asking = std::size_t{48} << 10;
  if (shape.shared_bytes > without_asking)
    if (result<void> ok = check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     static_cast<int>(shape.shared_bytes)),
                                "cudaFuncSetAttribute");
        !ok)
      return ok;
#if defined(__CUDACC__)
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = dim3{shape.threads};
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = on;
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &overlap;
  config.numAttrs = shape.overlaps ? 1 : 0;
  if (result<void> ok = check(cudaLaunchKernelEx(&config, kernel, args), "cudaLaunchKernelEx"); !ok) return ok;
#elif defined(SINQ_CUDA_EMULATION)
  sinq_emulation::launch_on_stream({shape.grid, dim3{shape.threads}, shape.shared_bytes}, on, [&] { kernel(args); });
#endif
  return check(cudaGetLastError(), "launch of a kernel");
}

} // namespace detail

} // namespace sinq::cuda
