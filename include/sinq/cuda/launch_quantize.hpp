#pragma once

#include "../core/levels.hpp"
#include "launch_dequantize.hpp"
#include "plan.hpp"
#include "quantize.cuh"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace sinq::cuda {

/// What cuda::quantize makes; the names are those of sinq::quantize_options.
struct quantize_options {
  bool balance = true; ///< Sinkhorn normalisation first: methods sinq and sinq_nf4; false: rtn and nf4
  sinq::grid grid = sinq::grid::uniform; ///< or nf4
  int bits = 4;                          ///< 2, 3, 4 or 8; 4 of nf4
  unsigned group_size = 64;              ///< 32, 64 or 128
  bool symmetric = false;
  zero_mode zero = zero_mode::rounded;
  sinkhorn_options sinkhorn{}; ///< alternating without a rule; sums are those of f64_sums = false
};

namespace detail {

/// One call of quantize.
class quantize_call {
public:
  quantize_call(const quantize_options& o, kernels::output_type type, const void* w, std::size_t rows, std::size_t cols,
                std::size_t stride, workspace& work, cudaStream_t on)
      : o_{o}, rows_{rows}, cols_{cols}, work_{work}, on_{on} {
    args_.w = w;
    args_.type = type;
    args_.stride = stride;
  }

  [[nodiscard]] result<device_matrix> operator()() {
    if (result<void> ok = check_options(); !ok) return ok.error();
    result<device_matrix> out = device_matrix::allocate(args_.format);
    if (!out) return out;
    if (result<void> ok = fill_levels(*out); !ok) return ok.error();
    if (result<void> ok = fill_args(*out); !ok) return ok.error();
    if (result<void> ok = run(); !ok) return ok.error();
    if (result<void> ok = check_finite(); !ok) return ok.error();
    return out;
  }

private:
  [[nodiscard]] result<void> check_options() {
    if (rows_ == 0 || cols_ == 0)
      return make_error(errc::empty_matrix, "cuda::quantize: the matrix is ", rows_, " x ", cols_);
    constexpr std::size_t most = tile_rows * std::size_t{65535};
    if (rows_ > most || cols_ > most)
      return make_error(errc::unsupported, "cuda::quantize: the matrix is ", rows_, " x ", cols_, ", expected at most ",
                        most, " on a side");
    const bool nf4 = o_.grid == sinq::grid::nf4;
    if (!nf4 && o_.grid != sinq::grid::uniform)
      return make_error(errc::unsupported, "cuda::quantize: expected a uniform grid or nf4");
    if (o_.bits != 4 && (nf4 || (o_.bits != 2 && o_.bits != 3 && o_.bits != 8)))
      return make_error(errc::invalid_argument, "cuda::quantize: bits is ", o_.bits, ", expected ",
                        nf4 ? "4, the only width of nf4" : "2, 3, 4 or 8");
    if (o_.group_size != 32 && o_.group_size != 64 && o_.group_size != 128)
      return make_error(errc::invalid_argument, "cuda::quantize: group_size is ", o_.group_size,
                        ", expected 32, 64 or 128");
    if (result<void> ok = sinq::check(o_.sinkhorn); !ok) return ok;
    const code_form form = nf4            ? code_form::table4
                           : o_.bits == 2 ? code_form::u2
                           : o_.bits == 3 ? code_form::u3
                           : o_.bits == 4 ? code_form::u4
                                          : code_form::u8;
    args_.format = {static_cast<unsigned>(rows_), static_cast<unsigned>(cols_), form, o_.group_size};
    return {};
  }

  [[nodiscard]] result<void> fill_levels(device_matrix& out) {
    if (out.levels().empty()) return {};
    return out.levels().upload(nf4_levels, on_);
  }

  void fill_rules() {
    kernels::fit_rule& fit = args_.fit;
    fit.codebook = o_.grid == sinq::grid::nf4;
    fit.symmetric = o_.symmetric;
    fit.rounded = o_.zero == zero_mode::rounded;
    fit.top = static_cast<float>(max_code(o_.bits));
    fit.at_zero = static_cast<unsigned>(max_code(o_.bits)) / 2;
    if (fit.codebook) {
      std::copy(nf4_levels.begin(), nf4_levels.end(), fit.levels);
      for (std::size_t n = 0; n < 15; ++n)
        fit.borders[n] = sinq::detail::border_between(nf4_levels[n], nf4_levels[n + 1]);
    }
    const sinkhorn_options& s = o_.sinkhorn;
    args_.balance = {.iterations = s.iterations,
                     .balance = o_.balance,
                     .alternating = s.rule.value_or(sinkhorn_rule::alternating) == sinkhorn_rule::alternating,
                     .stop_when_worse = s.stop_when_worse,
                     .any_magnitude = s.any_magnitude,
                     .sigma_min = s.sigma_min,
                     .sigma_max = s.sigma_max,
                     .target_margin = s.target_margin,
                     .ratio_min = s.ratio_min,
                     .ratio_max = s.ratio_max,
                     .scale_min = static_cast<float>(std::exp(static_cast<double>(s.log_scale_min))),
                     .scale_max = static_cast<float>(std::exp(static_cast<double>(s.log_scale_max)))};
  }

  /// Divides the workspace among what lies between the kernels, the widest first.
  [[nodiscard]] result<void> fill_args(device_matrix& out) {
    fill_rules();
    const device_format& f = args_.format;
    tiles_ = ceil_div(f.cols, f.group_size);
    const std::size_t lines = std::size_t{tiles_} * f.rows;
    const std::size_t floats = lines * 6 + std::size_t{tiles_} * (f.group_size + 1);
    const std::size_t bytes = floats * sizeof(float) + tiles_ * (sizeof(std::uint64_t) + sizeof(int));
    if (result<void> ok = work_.reserve(bytes, on_); !ok) return ok;
    std::byte* at = work_.data();
    const auto take = [&]<class T>(T*& to, std::size_t count) {
      to = reinterpret_cast<T*>(at);
      at += count * sizeof(T);
    };
    take(args_.bad, tiles_);
    take(args_.row_value, lines);
    take(args_.row_std, lines);
    take(args_.row_factor, lines);
    take(args_.row_scale, lines);
    take(args_.group_scale, lines);
    take(args_.group_zero, lines);
    take(args_.col_factor, std::size_t{tiles_} * f.group_size);
    take(args_.largest, tiles_);
    take(args_.shift, tiles_);
    args_.t = out.t().data();
    args_.unit = out.unit().data();
    args_.weights = out.weights().data();
    return {};
  }

  [[nodiscard]] result<void> run() {
    const device_format& f = args_.format;
    const std::size_t t_bytes = std::size_t{f.units()} * unit_cols * sizeof(float);
    if (result<void> ok = cuda::check(cudaMemsetAsync(args_.t, 0, t_bytes, on_), "cudaMemsetAsync"); !ok) return ok;
    const std::vector<float> ones(f.groups(), 1.0f); // of groups behind the last column
    if (result<void> ok = cuda::check(
            cudaMemcpyAsync(args_.unit, ones.data(), ones.size() * sizeof(float), cudaMemcpyHostToDevice, on_),
            "cudaMemcpyAsync");
        !ok)
      return ok;
    if (result<void> ok = launch(kernels::balance_tiles<>, {dim3{tiles_}, kernels::balance_threads}, args_, on_); !ok)
      return ok;
    const launch_shape shape{{ceil_div(f.units(), 4), f.tiles()}, 128};
    return with_form(f.form, [&](auto form) { return launch(kernels::write_codes<form()>, shape, args_, on_); });
  }

  /// Waits for the kernels.
  [[nodiscard]] result<void> check_finite() const {
    std::vector<std::uint64_t> bad(tiles_);
    if (result<void> ok = cuda::check(
            cudaMemcpyAsync(bad.data(), args_.bad, bad.size() * sizeof(std::uint64_t), cudaMemcpyDeviceToHost, on_),
            "cudaMemcpyAsync");
        !ok)
      return ok;
    if (result<void> ok = cuda::check(cudaStreamSynchronize(on_), "cudaStreamSynchronize"); !ok) return ok;
    const std::uint64_t first = *std::min_element(bad.begin(), bad.end());
    if (first == ~std::uint64_t{0}) return {};
    return make_error(errc::non_finite, "non-finite weight at row ", first / cols_, ", column ", first % cols_, " of ",
                      rows_, " x ", cols_);
  }

  quantize_options o_;
  std::size_t rows_, cols_;
  workspace& work_;
  cudaStream_t on_;
  unsigned tiles_ = 0;
  kernels::quantize_args args_{};
};

} // namespace detail

/// Quantizes a weight on the device: methods sinq, sinq_nf4, rtn and nf4 in tiles of one group of columns, without
/// refinement. Waits for the stream.
/// @param w  [N x K] of float, __half or __nv_bfloat16 on the device, finite
/// @return   what to_device_layout makes of pack(quantize(w, {.refine = refine_mode::none, .col_scale = dtype::f32})):
///           the same bytes
/// @errors   errc::empty_matrix, errc::invalid_argument, errc::unsupported (options), errc::non_finite (the first row
///           and column), errc::device
template <class T>
[[nodiscard]] result<device_matrix> quantize(device_view<T> w, const quantize_options& options, workspace& work,
                                             cudaStream_t on = nullptr) {
  return detail::quantize_call{
      options, detail::output_type_of<std::remove_const_t<T>>, w.data, w.rows, w.cols, w.stride, work, on}();
}

} // namespace sinq::cuda
