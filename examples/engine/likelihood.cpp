#include "likelihood.hpp"

#include "rows.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

namespace engine {
namespace {

auto as_array(std::span<float> values) {
  return Eigen::Map<Eigen::ArrayXf>{values.data(), static_cast<Eigen::Index>(values.size())};
}
auto as_array(std::span<const float> values) {
  return Eigen::Map<const Eigen::ArrayXf>{values.data(), static_cast<Eigen::Index>(values.size())};
}

std::array<std::size_t, compared_tokens> likeliest(std::span<const float> values) {
  std::array<std::size_t, compared_tokens> best{};
  std::array<float, compared_tokens> value;
  value.fill(-std::numeric_limits<float>::infinity());
  for (std::size_t v = 0; v < values.size(); ++v) {
    if (!(values[v] > value.back())) continue;
    std::size_t at = compared_tokens - 1;
    for (; at > 0 && values[v] > value[at - 1]; --at) value[at] = value[at - 1], best[at] = best[at - 1];
    value[at] = values[v], best[at] = v;
  }
  return best;
}

divergence diverge(std::span<const float> p, std::span<const float> q) {
  const auto log_p = as_array(p), log_q = as_array(q);
  divergence d;
  d.kl = (log_p.exp() * (log_p - log_q)).cast<double>().sum();
  const auto best_p = likeliest(p), best_q = likeliest(q);
  d.is_flipped = best_p[0] != best_q[0];
  for (const std::size_t token : best_p)
    d.common += std::find(best_q.begin(), best_q.end(), token) != best_q.end() ? 1 : 0;
  return d;
}

} // namespace

void log_softmax(sinq::matrix_view<float> x, sinq::executor& threads) {
  for_rows(threads, x.rows(), [&](std::size_t i) {
    auto row = as_array(x.row(i));
    row -= row.maxCoeff();
    row -= static_cast<float>(std::log(row.exp().cast<double>().sum()));
  });
}

sinq::result<void> log_probabilities(const model& m, std::span<const int> window, sinq::matrix_view<float> to) {
  SINQ_ASSERT(window.size() >= 2 && to.rows() == window.size() - 1);
  kv_cache cache{m.config(), window.size(), sinq::dtype::f32};
  if (auto ok = m.forward(window.first(window.size() - 1), cache, to); !ok) return ok;
  log_softmax(to, *m.with().threads);
  return {};
}

std::vector<double> negative_log_likelihood(sinq::matrix_view<const float> log_probability,
                                            std::span<const int> window) {
  std::vector<double> values(log_probability.rows());
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = -static_cast<double>(log_probability(i, static_cast<std::size_t>(window[i + 1])));
  return values;
}

std::vector<divergence> divergences(sinq::matrix_view<const float> log_p, sinq::matrix_view<const float> log_q,
                                    sinq::executor& threads) {
  SINQ_ASSERT(log_p.rows() == log_q.rows() && log_p.cols() == log_q.cols());
  std::vector<divergence> all(log_p.rows());
  threads.run(all.size(), [&](std::size_t i) { all[i] = diverge(log_p.row(i), log_q.row(i)); });
  return all;
}

void window_mean::add(double value) {
  values_.push_back(value);
  const double before = value - mean_;
  mean_ += before / static_cast<double>(count());
  squares_ += before * (value - mean_);
}

void window_mean::add(std::span<const double> values) {
  add(std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()));
}

double window_mean::standard_error() const {
  if (count() < 2) return std::numeric_limits<double>::quiet_NaN();
  const double n = static_cast<double>(count());
  return std::sqrt(squares_ / (n - 1) / n);
}

} // namespace engine
