#pragma once

#include "../core/matrix_view.hpp"
#include "../core/wide.hpp"

#include <cstddef>

namespace sinq::detail {

/// out[i][j] = (w[i][j] / col[j]) / row[i]
template <class Real>
struct divide_loop {
  template <std::size_t W>
  SINQ_INLINE static void run(matrix_view<const Real> w, const Real* row, const Real* col, matrix_view<Real> out) {
    vec<Real, W> x, by;
    for (std::size_t i = 0; i < w.rows(); ++i) {
      const Real* const from = w.data() + i * w.stride();
      Real* const to = out.data() + i * out.stride();
      std::size_t j = 0;
      for (; j + W <= w.cols(); j += W) {
        load(from + j, x);
        load(col + j, by);
        store((x / by) / row[i], to + j);
      }
      for (; j < w.cols(); ++j) to[j] = (from[j] / col[j]) / row[i];
    }
  }
};

/// One step of some scales: to = from clamp(clamp(sigma) / target), clamped, and factor = window / to. Scales are in
/// the type of the standard deviations.
template <class Real, class Scale>
struct scale_step {
  struct bounds {
    Scale low, high;
  };
  bounds sigma, ratio, scale;
  Scale per_target;
  Real window;

  template <std::size_t W>
  SINQ_INLINE static void run(const scale_step& by, const Scale* sigma, std::size_t n, const Scale* from, Scale* to,
                              Real* factor) {
    constexpr std::size_t width = W < 2 ? 1 : W * sizeof(float) / sizeof(Scale);
    std::size_t k = 0;
    for (; k + width <= n; k += width) move<width>(by, sigma + k, from + k, to + k, factor + k);
    for (; k < n; ++k) move<1>(by, sigma + k, from + k, to + k, factor + k);
  }

private:
  template <std::size_t W>
  SINQ_INLINE static void move(const scale_step& by, const Scale* sigma, const Scale* from, Scale* to, Real* factor) {
    vec<Scale, W> x, old;
    load(sigma, x);
    load(from, old);
    clamp(x, by.sigma);
    x *= by.per_target;
    clamp(x, by.ratio);
    x *= old;
    clamp(x, by.scale);
    store(x, to);
    store(by.window / __builtin_convertvector(x, vec<Real, W>), factor);
  }
  template <class Vector>
  SINQ_INLINE static void clamp(Vector& x, const bounds& to) {
    const Vector low = Vector{} + to.low, high = Vector{} + to.high;
    x = x > low ? x : low;
    x = x < high ? x : high;
  }
};

} // namespace sinq::detail
