#pragma once

#include "model.hpp"

namespace engine {

/// x - log sum e^x of each row, in place; in f32, the sum in f64.
void log_softmax(sinq::matrix_view<float> x, sinq::executor& threads);

/// Log-probabilities of what follows each token of a window but the last, which has nothing to be compared with.
/// @param to  [window.size() - 1 x vocabulary]
/// @errors    those of model::forward
[[nodiscard]] sinq::result<void> log_probabilities(const model& m, std::span<const int> window,
                                                   sinq::matrix_view<float> to);

/// -log p of the tokens that a window goes on with, [window.size() - 1], in nats.
[[nodiscard]] std::vector<double> negative_log_likelihood(sinq::matrix_view<const float> log_probability,
                                                          std::span<const int> window);

inline constexpr int compared_tokens = 5;

/// How far one prediction is from another.
struct divergence {
  double kl = 0;           ///< sum p (log p - log q), in nats
  bool is_flipped = false; ///< the likeliest token is another
  int common = 0;          ///< of the compared_tokens likeliest of each, how many are the same
};
/// Each row of q against that of p.
[[nodiscard]] std::vector<divergence> divergences(sinq::matrix_view<const float> log_p,
                                                  sinq::matrix_view<const float> log_q, sinq::executor& threads);

/// The mean of what windows gave, and its standard error from how they differ.
class window_mean {
public:
  void add(double value);
  /// Adds the mean of what a window's positions gave. @pre not empty
  void add(std::span<const double> values);
  [[nodiscard]] std::size_t count() const { return values_.size(); }
  /// What each window gave.
  [[nodiscard]] const std::vector<double>& values() const { return values_; }
  [[nodiscard]] double mean() const { return mean_; }
  /// Of two windows or more; otherwise NaN.
  [[nodiscard]] double standard_error() const;

private:
  std::vector<double> values_;
  double mean_ = 0, squares_ = 0;
};

} // namespace engine
