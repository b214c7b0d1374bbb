#pragma once

#include <sinq/core/error.hpp>

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace engine {

/// How the next token is chosen from the logits.
struct sampling {
  float temperature = 0;  ///< divides the logits; 0: always the likeliest token
  int top_k = 0;          ///< only the k likeliest tokens and those as likely as the last of them; 0: all
  float top_p = 1;        ///< of those, only the likeliest whose probabilities together reach this share; 1: all
  std::uint64_t seed = 0; ///< equal seeds choose equal tokens
};

/// Whether a sampler can have these options.
/// @errors  errc::invalid_argument: temperature is negative or not finite, top_k is negative, top_p is not in [0, 1]
[[nodiscard]] sinq::result<void> check(const sampling& options);

/// A token that may be chosen, and how likely it is.
struct candidate {
  int token = 0;
  float logit = 0;
  double probability = 0;
};

/// The tokens that remain after temperature, top_k and top_p, in this order; at least one, probabilities sum to 1.
/// At temperature 0 it is the token with the largest logit, of equal ones the first. A logit that is NaN counts as
/// -infinity; if no logit is larger, all tokens are equally likely, and the first is taken at temperature 0.
/// @param logits  one for each token, not empty
/// @numerics      softmax in f64; of equally likely tokens top_p keeps the first
/// @source        transformers generation/logits_process.py: TopKLogitsWarper, TopPLogitsWarper
/// @pre           check(options)
[[nodiscard]] std::vector<candidate> candidates(std::span<const float> logits, const sampling& options);

/// Chooses tokens, one after the other, reproducibly on every standard library.
class sampler {
public:
  /// @pre  check(options)
  explicit sampler(const sampling& options);

  /// The next token: one of candidates(logits, options), with its probability. @pre  logits is not empty
  [[nodiscard]] int operator()(std::span<const float> logits);

private:
  const sampling options_;
  std::mt19937_64 bits_;
};

} // namespace engine
