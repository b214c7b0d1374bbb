#include "support/catch.hpp"
#include "support/outcome.hpp"
#include "support/random_matrices.hpp"

#include <engine/sampler.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

using engine::candidate;
using engine::sampling;
using sinq::errc;
using sinq_test::check_error;

namespace {

constexpr float infinite = std::numeric_limits<float>::infinity();

std::vector<float> random_logits(std::size_t count, std::uint64_t seed) {
  sinq_test::random_source random{seed};
  std::vector<float> logits(count);
  for (float& logit : logits) logit = static_cast<float>(2.5 * random.normal());
  return logits;
}

/// What transformers' TopKLogitsWarper and TopPLogitsWarper leave, from their definitions: token i stays if fewer than
/// k logits are larger, then if the probabilities of those more likely do not reach top_p.
std::map<int, double> naive_candidates(std::span<const float> logits, const sampling& o) {
  std::map<int, double> left;
  double sum = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const auto larger = std::count_if(logits.begin(), logits.end(), [&](float other) { return other > logits[i]; });
    if (o.top_k != 0 && larger >= o.top_k) continue;
    sum += left[static_cast<int>(i)] = std::exp(static_cast<double>(logits[i]) / static_cast<double>(o.temperature));
  }
  std::map<int, double> kept;
  double kept_sum = 0;
  for (const auto& [token, weight] : left) {
    double before = 0;
    for (const auto& [other, other_weight] : left)
      if (other_weight > weight || (other_weight == weight && other < token)) before += other_weight;
    if (o.top_p < 1 && before != 0 && before / sum >= static_cast<double>(o.top_p)) continue;
    kept_sum += kept[token] = weight;
  }
  for (auto& [token, weight] : kept) weight /= kept_sum;
  return kept;
}

bool same_candidates(std::span<const candidate> actual, const std::map<int, double>& expected) {
  if (actual.size() != expected.size()) return false;
  return std::all_of(actual.begin(), actual.end(), [&](const candidate& c) {
    const auto at = expected.find(c.token);
    return at != expected.end() && std::fabs(c.probability - at->second) <= 1e-12;
  });
}

/// Pearson's statistic of the draws, less what 99.9999 % of correct samplers stay below (Wilson and Hilferty: 4.753 is
/// that quantile of the normal distribution). A token that cannot be drawn and is makes
/// it infinite.
double chi_square_excess(const std::function<int()>& draw, const std::map<int, double>& probabilities, int draws) {
  std::map<int, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[draw()];
  double statistic = 0;
  for (const auto& [token, count] : counts)
    if (!probabilities.contains(token)) return std::numeric_limits<double>::infinity();
  for (const auto& [token, p] : probabilities) statistic += std::pow(counts[token] - draws * p, 2) / (draws * p);
  const double freedom = static_cast<double>(probabilities.size()) - 1;
  const double spread = 2 / (9 * freedom);
  return statistic - freedom * std::pow(1 - spread + 4.753 * std::sqrt(spread), 3);
}

const std::vector<sampling> drawn_options{
    {.temperature = 2, .seed = 1},
    {.temperature = 4, .seed = 2},
    {.temperature = 0.7f, .top_k = 5, .seed = 3},
    {.temperature = 1, .top_p = 0.8f, .seed = 4},
    {.temperature = 1.3f, .top_k = 7, .top_p = 0.9f, .seed = 5},
};

std::vector<int> tokens_of(engine::sampler& choose, int count) {
  std::vector<int> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(choose(random_logits(50, static_cast<std::uint64_t>(i))));
  return tokens;
}

} // namespace

TEST_CASE("sampler takes the largest logit at temperature 0, of equal ones the first") {
  engine::sampler choose{{.top_k = 3, .top_p = 0.5f, .seed = 9}};
  CHECK(choose(std::vector<float>{1, 3, 2}) == 1);
  CHECK(choose(std::vector<float>{-1, 3, 2, 3}) == 1);
  CHECK(choose(std::vector<float>{0}) == 0);
  CHECK(choose(std::vector<float>{5, 5, 5}) == 0);
  CHECK(choose(std::vector<float>{0, infinite, infinite}) == 1);
}

TEST_CASE("sampler never takes a token whose logit is NaN while there is another") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  engine::sampler greedy{{}};
  CHECK(greedy(std::vector<float>{nan, -3, nan}) == 1);
  CHECK(greedy(std::vector<float>{nan, nan}) == 0);
  engine::sampler random{{.temperature = 1, .top_p = 0.9f}};
  for (int i = 0; i < 100; ++i) CHECK(random(std::vector<float>{nan, -3, nan, -infinite}) == 1);
  const auto even = engine::candidates(std::vector<float>{nan, nan}, {.temperature = 1});
  REQUIRE(even.size() == 2);
  CHECK(even[0].probability == 0.5);
}

TEST_CASE("sampler shares the probability among infinite logits") {
  const auto left = engine::candidates(std::vector<float>{infinite, 3, infinite, -infinite}, {.temperature = 1});
  REQUIRE(left.size() == 4);
  CHECK(left[0].probability == 0.5);
  CHECK(left[1].probability == 0);
  CHECK(left[2].probability == 0.5);
  CHECK(left[3].probability == 0);
}

TEST_CASE("sampler's candidates and probabilities are those of the definition") {
  for (const int top_k : {0, 1, 2, 10, 200, 1000}) {
    for (const float top_p : {0.0f, 0.1f, 0.5f, 0.95f, 1.0f}) {
      for (const float temperature : {0.3f, 1.0f, 4.0f}) {
        const sampling options{.temperature = temperature, .top_k = top_k, .top_p = top_p};
        CAPTURE(top_k, top_p, temperature);
        const auto logits = random_logits(200, static_cast<std::uint64_t>(top_k) + 1);
        CHECK(same_candidates(engine::candidates(logits, options), naive_candidates(logits, options)));
      }
    }
  }
}

TEST_CASE("sampler's top_k keeps ties with the last, top_p the first of equal tokens") {
  const std::vector<float> logits{1, 2, 2, 0, 2, 1};
  for (const sampling& options : {sampling{.temperature = 1, .top_k = 2}, sampling{.temperature = 1, .top_p = 0.4f}})
    CHECK(same_candidates(engine::candidates(logits, options), naive_candidates(logits, options)));
  CHECK(engine::candidates(logits, {.temperature = 1, .top_k = 2}).size() == 3);
  const auto first = engine::candidates(logits, {.temperature = 1, .top_p = 0.4f});
  REQUIRE(first.size() == 2);
  CHECK(first[0].token == 1);
  CHECK(first[1].token == 2);
}

TEST_CASE("the comparison of candidates sees a token too many, one too few and another temperature") {
  const auto logits = random_logits(50, 3);
  const sampling options{.temperature = 1, .top_k = 10, .top_p = 0.9f};
  const auto expected = naive_candidates(logits, options);
  CHECK_FALSE(same_candidates(engine::candidates(logits, {.temperature = 1, .top_k = 10}), expected));
  CHECK_FALSE(same_candidates(engine::candidates(logits, {.temperature = 1, .top_k = 2, .top_p = 0.9f}), expected));
  CHECK_FALSE(
      same_candidates(engine::candidates(logits, {.temperature = 1.001f, .top_k = 10, .top_p = 0.9f}), expected));
}

TEST_CASE("sampler draws tokens as often as they are likely") {
  const auto logits = random_logits(12, 5);
  for (const sampling& options : drawn_options) {
    engine::sampler choose{options};
    const auto expected = naive_candidates(logits, options);
    CAPTURE(options.seed);
    for (const auto& [token, probability] : expected) CHECK(20000 * probability >= 5);
    CHECK(chi_square_excess([&] { return choose(logits); }, expected, 20000) <= 0);
  }
}

TEST_CASE("the statistic of draws sees a wrong temperature and a token that is out of the set") {
  const auto logits = random_logits(12, 5);
  for (const sampling& options : drawn_options) {
    const auto expected = naive_candidates(logits, options);
    sampling warmer = options;
    warmer.temperature *= 1.2f;
    engine::sampler choose{warmer};
    CAPTURE(options.seed);
    CHECK(chi_square_excess([&] { return choose(logits); }, expected, 20000) > 0);
    engine::sampler everything{{.temperature = options.temperature}};
    if (expected.size() < logits.size())
      CHECK(chi_square_excess([&] { return everything(logits); }, expected, 20000) > 0);
  }
}

TEST_CASE("sampler repeats itself with the same seed and not with another") {
  const sampling options{.temperature = 1, .top_k = 20, .top_p = 0.95f, .seed = 42};
  engine::sampler a{options};
  engine::sampler b{options};
  engine::sampler other{{.temperature = 1, .top_k = 20, .top_p = 0.95f, .seed = 43}};
  const auto tokens = tokens_of(a, 100);
  CHECK(tokens_of(b, 100) == tokens);
  CHECK(tokens_of(other, 100) != tokens);
}

TEST_CASE("sampler draws with the upper 53 bits of std::mt19937_64") {
  const std::vector<float> even(1000, 0.0f);
  engine::sampler choose{{.temperature = 1, .seed = 7}};
  std::mt19937_64 bits{7};
  for (int i = 0; i < 100; ++i) {
    const double drawn = static_cast<double>(bits() >> 11) * 0x1p-53;
    CHECK(choose(even) == Approx(std::floor(drawn * 1000)).margin(0.5));
  }
}

TEST_CASE("sampler names the option that it does not accept") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  sinq_test::require_ok(check(sampling{}));
  sinq_test::require_ok(check(sampling{.temperature = 100, .top_k = 1000000, .top_p = 0}));
  check_error(check(sampling{.temperature = -1}), errc::invalid_argument, {"temperature is -1", "at least 0"});
  check_error(check(sampling{.temperature = nan}), errc::invalid_argument, {"temperature is ", "nan"});
  check_error(check(sampling{.temperature = infinite}), errc::invalid_argument, {"temperature is inf"});
  check_error(check(sampling{.top_k = -2}), errc::invalid_argument, {"top_k is -2", "at least 0"});
  check_error(check(sampling{.top_p = 1.5f}), errc::invalid_argument, {"top_p is 1.5", "from 0 to 1"});
  check_error(check(sampling{.top_p = -0.5f}), errc::invalid_argument, {"top_p is -0.5"});
  check_error(check(sampling{.top_p = nan}), errc::invalid_argument, {"top_p is ", "nan"});
}
