#pragma once

/// Seeded matrices to test with: the ordinary ones and those that break things. The same numbers on every standard
/// library: the bits come from std::mt19937_64, whose output is defined, and the distributions are our own.

#include <sinq/core/matrix_view.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace sinq_test {

/// A small owned row-major matrix.
struct matrix {
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::vector<float> values;

  matrix() = default;
  matrix(std::size_t n, std::size_t k, float value = 0.0f) : rows{n}, cols{k}, values(n * k, value) {}

  [[nodiscard]] float& operator()(std::size_t i, std::size_t j) { return values[i * cols + j]; }
  [[nodiscard]] float operator()(std::size_t i, std::size_t j) const { return values[i * cols + j]; }
  [[nodiscard]] sinq::matrix_view<float> view() { return {values.data(), rows, cols}; }
  [[nodiscard]] sinq::matrix_view<const float> view() const { return {values.data(), rows, cols}; }
};

/// Numbers from a seed.
class random_source {
public:
  explicit random_source(std::uint64_t seed) : bits_{seed} {}

  /// In (0, 1), 53 bits.
  [[nodiscard]] double uniform() { return (static_cast<double>(bits_() >> 11) + 0.5) * 0x1p-53; }
  /// In 0 .. below - 1.
  [[nodiscard]] std::size_t index(std::size_t below) { return static_cast<std::size_t>(bits_() % below); }
  /// Standard normal, by Box and Muller.
  [[nodiscard]] double normal() {
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }
  /// Student's t with 5 degrees of freedom: the heavy tails of trained weights.
  [[nodiscard]] double student_t5() {
    double square = 0.0;
    for (int k = 0; k < 5; ++k) {
      const double z = normal();
      square += z * z;
    }
    return normal() / std::sqrt(square / 5.0);
  }

private:
  std::mt19937_64 bits_;
};

/// Normal with standard deviation `sigma`.
[[nodiscard]] inline matrix gaussian(std::size_t rows, std::size_t cols, std::uint64_t seed, double sigma = 0.02) {
  random_source random{seed};
  matrix m{rows, cols};
  for (float& value : m.values) value = static_cast<float>(sigma * random.normal());
  return m;
}

[[nodiscard]] inline matrix student_t(std::size_t rows, std::size_t cols, std::uint64_t seed, double sigma = 0.02) {
  random_source random{seed};
  matrix m{rows, cols};
  for (float& value : m.values) value = static_cast<float>(sigma * random.student_t5());
  return m;
}

/// Student-t with about every 16th row 6 and every 24th column 12 times as large.
[[nodiscard]] inline matrix with_outliers(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  matrix m = student_t(rows, cols, seed);
  random_source random{seed + 1};
  for (std::size_t n = 0; n < rows / 16 + 1; ++n) {
    const std::size_t i = random.index(rows);
    for (std::size_t j = 0; j < cols; ++j) m(i, j) *= 6.0f;
  }
  for (std::size_t n = 0; n < cols / 24 + 1; ++n) {
    const std::size_t j = random.index(cols);
    for (std::size_t i = 0; i < rows; ++i) m(i, j) *= 12.0f;
  }
  return m;
}

/// Gaussian with one weight of 1e6.
[[nodiscard]] inline matrix with_one_outlier(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  matrix m = gaussian(rows, cols, seed);
  m.values[random_source{seed + 1}.index(m.values.size())] = 1e6f;
  return m;
}

/// Gaussian, every second row one value throughout.
[[nodiscard]] inline matrix with_constant_rows(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  matrix m = gaussian(rows, cols, seed);
  for (std::size_t i = 0; i < rows; i += 2)
    for (std::size_t j = 1; j < cols; ++j) m(i, j) = m(i, 0);
  return m;
}

/// Gaussian, zero in every second group of `group_size` columns, in the other half of the rows' groups each.
[[nodiscard]] inline matrix with_zero_groups(std::size_t rows, std::size_t cols, std::uint64_t seed,
                                             std::size_t group_size = 64) {
  matrix m = gaussian(rows, cols, seed);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < cols; ++j)
      if ((i + j / group_size) % 2 == 0) m(i, j) = 0.0f;
  return m;
}

/// A kind of matrix, with the name that a failing test shows.
struct named_matrix {
  std::string name;
  matrix m;
};

/// One of every kind, all of one shape.
[[nodiscard]] inline std::vector<named_matrix> every_kind(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  std::vector<named_matrix> kinds;
  kinds.push_back({"gaussian", gaussian(rows, cols, seed)});
  kinds.push_back({"student-t", student_t(rows, cols, seed)});
  kinds.push_back({"outlier rows and columns", with_outliers(rows, cols, seed)});
  kinds.push_back({"one outlier of 1e6", with_one_outlier(rows, cols, seed)});
  kinds.push_back({"constant rows", with_constant_rows(rows, cols, seed)});
  kinds.push_back({"zero groups", with_zero_groups(rows, cols, seed)});
  kinds.push_back({"all zero", matrix{rows, cols}});
  kinds.push_back({"all equal", matrix{rows, cols, 0.37f}});
  kinds.push_back({"denormal", gaussian(rows, cols, seed, 1e-41)});
  kinds.push_back({"huge", gaussian(rows, cols, seed, 1e30)});
  kinds.push_back({"tiny", gaussian(rows, cols, seed, 1e-30)});
  return kinds;
}

/// Shapes [N x K] that do not divide by groups, lanes or tiles, and the smallest ones.
inline constexpr std::array<std::pair<std::size_t, std::size_t>, 10> ragged_shapes{
    {{1, 1}, {1, 64}, {64, 1}, {2, 2}, {3, 5}, {7, 63}, {5, 65}, {17, 100}, {33, 128}, {2, 257}}};

} // namespace sinq_test
