#include "sampler.hpp"

#include <sinq/core/finite.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace engine {
namespace {

std::vector<candidate> all_tokens(std::span<const float> logits) {
  std::vector<candidate> tokens(logits.size());
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = {static_cast<int>(i), std::isnan(logits[i]) ? -std::numeric_limits<float>::infinity() : logits[i], 0};
  return tokens;
}

bool less_likely(const candidate& a, const candidate& b) {
  return a.logit != b.logit ? a.logit < b.logit : a.token > b.token;
}

void keep_top_k(std::vector<candidate>& tokens, std::size_t k) {
  if (k >= tokens.size()) return;
  std::vector<float> logits(tokens.size());
  std::transform(tokens.begin(), tokens.end(), logits.begin(), [](const candidate& c) { return c.logit; });
  const auto last = logits.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(logits.begin(), last, logits.end(), std::greater<>{});
  std::erase_if(tokens, [least = *last](const candidate& c) { return c.logit < least; });
}

/// Probabilities of what is left to choose from. A difference of equal infinities is 0.
void apply_softmax(std::vector<candidate>& tokens, double temperature) {
  const float largest = std::max_element(tokens.begin(), tokens.end(), less_likely)->logit;
  double sum = 0;
  for (candidate& c : tokens) {
    const double below = c.logit == largest ? 0.0 : static_cast<double>(c.logit) - static_cast<double>(largest);
    c.probability = std::exp(below / temperature);
    sum += c.probability;
  }
  for (candidate& c : tokens) c.probability /= sum;
}

/// Takes tokens from a heap, the likeliest first, until they reach the share.
void keep_top_p(std::vector<candidate>& tokens, double share) {
  std::make_heap(tokens.begin(), tokens.end(), less_likely);
  auto taken = tokens.end();
  double sum = 0;
  do {
    std::pop_heap(tokens.begin(), taken, less_likely);
    --taken;
    sum += taken->probability;
  } while (sum < share && taken != tokens.begin());
  tokens.erase(tokens.begin(), taken);
  std::reverse(tokens.begin(), tokens.end());
  for (candidate& c : tokens) c.probability /= sum;
}

} // namespace

sinq::result<void> check(const sampling& o) {
  using sinq::errc;
  if (!(o.temperature >= 0) || !sinq::is_finite(o.temperature))
    return sinq::make_error(errc::invalid_argument, "temperature is ", o.temperature,
                            ", expected a finite number of at least 0");
  if (o.top_k < 0) return sinq::make_error(errc::invalid_argument, "top_k is ", o.top_k, ", expected at least 0");
  if (!(o.top_p >= 0 && o.top_p <= 1))
    return sinq::make_error(errc::invalid_argument, "top_p is ", o.top_p, ", expected a number from 0 to 1");
  return {};
}

std::vector<candidate> candidates(std::span<const float> logits, const sampling& o) {
  SINQ_ASSERT(!logits.empty() && check(o).has_value());
  std::vector<candidate> tokens = all_tokens(logits);
  if (o.temperature == 0) {
    candidate best = *std::max_element(tokens.begin(), tokens.end(), less_likely);
    best.probability = 1;
    return {best};
  }
  if (o.top_k != 0) keep_top_k(tokens, static_cast<std::size_t>(o.top_k));
  apply_softmax(tokens, static_cast<double>(o.temperature));
  if (o.top_p < 1) keep_top_p(tokens, static_cast<double>(o.top_p));
  return tokens;
}

sampler::sampler(const sampling& options) : options_{options}, bits_{options.seed} {
  SINQ_ASSERT(check(options).has_value());
}

int sampler::operator()(std::span<const float> logits) {
  const std::vector<candidate> tokens = candidates(logits, options_);
  const double drawn = static_cast<double>(bits_() >> 11) * 0x1p-53;
  double sum = 0;
  for (const candidate& c : tokens) {
    sum += c.probability;
    if (drawn < sum) return c.token;
  }
  return std::max_element(tokens.begin(), tokens.end(), less_likely)->token;
}

} // namespace engine
