#pragma once

#include "layout.hpp"
#include "runtime.hpp"

#include <vector>

namespace sinq::cuda {

/// A quantized weight in the memory of the device: what matmul and dequantize read.
class device_matrix {
public:
  /// Copies a weight that to_device_layout has arranged (cuda/convert.hpp). The image may go once the stream has come
  /// this far. @errors errc::device
  [[nodiscard]] static result<device_matrix> upload(const device_image& image, cudaStream_t on = nullptr) {
    device_matrix made;
    made.format_ = image.format;
    if (result<void> ok = copy(std::span{image.weights}, made.weights_, on); !ok) return ok.error();
    if (result<void> ok = copy(std::span{image.t}, made.t_, on); !ok) return ok.error();
    if (result<void> ok = copy(std::span{image.unit}, made.unit_, on); !ok) return ok.error();
    if (result<void> ok = copy(std::span{image.levels}, made.levels_, on); !ok) return ok.error();
    return result<device_matrix>{std::move(made)};
  }
  /// A weight whose parts have room and are yet to be written. @errors errc::device
  [[nodiscard]] static result<device_matrix> allocate(const device_format& format) {
    device_matrix made;
    made.format_ = format;
    const std::size_t levels = format.form == code_form::table4 ? 16 : 0;
    if (result<void> ok = reserve(format.weight_bytes(), made.weights_); !ok) return ok.error();
    if (result<void> ok = reserve(std::size_t{format.units()} * unit_cols, made.t_); !ok) return ok.error();
    if (result<void> ok = reserve(format.groups(), made.unit_); !ok) return ok.error();
    if (result<void> ok = reserve(levels, made.levels_); !ok) return ok.error();
    return result<device_matrix>{std::move(made)};
  }

  /// The weight in the memory of the host, after everything in the stream before; waits for it. @errors errc::device
  [[nodiscard]] result<device_image> download(cudaStream_t on = nullptr) const {
    device_image image{format_, std::vector<std::uint8_t>(weights_.size()), std::vector<float>(t_.size()),
                       std::vector<float>(unit_.size()), std::vector<float>(levels_.size())};
    if (result<void> ok = weights_.download(image.weights, on); !ok) return ok.error();
    if (result<void> ok = t_.download(image.t, on); !ok) return ok.error();
    if (result<void> ok = unit_.download(image.unit, on); !ok) return ok.error();
    if (result<void> ok = levels_.download(image.levels, on); !ok) return ok.error();
    if (result<void> ok = check(cudaStreamSynchronize(on), "cudaStreamSynchronize"); !ok) return ok.error();
    return image;
  }

  [[nodiscard]] const device_format& format() const { return format_; }
  [[nodiscard]] std::size_t rows() const { return format_.rows; }
  [[nodiscard]] std::size_t cols() const { return format_.cols; }
  [[nodiscard]] std::size_t size_bytes() const {
    return weights_.size() + (t_.size() + unit_.size() + levels_.size()) * sizeof(float);
  }

  [[nodiscard]] device_buffer<std::uint8_t>& weights() { return weights_; }
  [[nodiscard]] const device_buffer<std::uint8_t>& weights() const { return weights_; }
  [[nodiscard]] device_buffer<float>& t() { return t_; }
  [[nodiscard]] const device_buffer<float>& t() const { return t_; }
  [[nodiscard]] device_buffer<float>& unit() { return unit_; }
  [[nodiscard]] const device_buffer<float>& unit() const { return unit_; }
  [[nodiscard]] device_buffer<float>& levels() { return levels_; }
  [[nodiscard]] const device_buffer<float>& levels() const { return levels_; }

private:
  template <class T>
  [[nodiscard]] static result<void> copy(std::span<const T> from, device_buffer<T>& to, cudaStream_t on) {
    result<device_buffer<T>> made = device_buffer<T>::copy_of(from, on);
    if (!made) return made.error();
    to = *std::move(made);
    return {};
  }
  template <class T>
  [[nodiscard]] static result<void> reserve(std::size_t size, device_buffer<T>& to) {
    result<device_buffer<T>> made = device_buffer<T>::make(size);
    if (!made) return made.error();
    to = *std::move(made);
    return {};
  }

  device_format format_;
  device_buffer<std::uint8_t> weights_;
  device_buffer<float> t_, unit_, levels_;
};

/// Memory that launchers use while they run, and what they know of the device; one for each stream.
class workspace {
public:
  /// @errors  errc::device, as where there is no device
  [[nodiscard]] static result<workspace> make() {
    const result<device_info> info = device_info::current();
    if (!info) return info.error();
    workspace made;
    made.device_ = *info;
    return result<workspace>{std::move(made)};
  }

  [[nodiscard]] const device_info& device() const { return device_; }
  /// At least so many bytes. Growing waits for the stream, so ask once for the largest before a stream is captured.
  /// @errors  errc::device
  [[nodiscard]] result<void> reserve(std::size_t bytes, cudaStream_t on) {
    if (bytes <= memory_.size()) return {};
    if (result<void> ok = check(cudaStreamSynchronize(on), "cudaStreamSynchronize"); !ok) return ok;
    result<device_buffer<std::byte>> made = device_buffer<std::byte>::make(bytes);
    if (!made) return made.error();
    memory_ = *std::move(made);
    return {};
  }
  [[nodiscard]] std::byte* data() { return memory_.data(); }

private:
  device_info device_;
  device_buffer<std::byte> memory_;
};

} // namespace sinq::cuda
