#include "engine/model.hpp"

#include "engine/golden_models.hpp"

namespace {

using sinq_test::check_error;
using sinq_test::expectation;
using sinq_test::golden_model;
using sinq_test::golden_models;
using sinq_test::require_ok;
using sinq_test::value_of;

/// f32 sums in another order, over 2 layers of 64 to 96 terms: transformers' own f32 and f64 differ by as much.
constexpr float logit_tolerance = 2e-5f;

/// The largest difference of two matrices of the same shape.
float distance(sinq::matrix_view<const float> a, sinq::matrix_view<const float> b) {
  REQUIRE((a.rows() == b.rows() && a.cols() == b.cols()));
  return (a.eigen() - b.eigen()).cwiseAbs().maxCoeff();
}

/// Logits of all tokens, run in chunks of some size.
std::vector<float> logits_of(const engine::model& m, std::span<const int> tokens, std::size_t chunk,
                             sinq::dtype cache_type) {
  engine::kv_cache cache{m.config(), tokens.size(), cache_type};
  std::vector<float> logits(tokens.size() * m.config().vocabulary);
  for (std::size_t begin = 0; begin < tokens.size(); begin += chunk) {
    const std::size_t count = std::min(chunk, tokens.size() - begin);
    require_ok(m.forward(tokens.subspan(begin, count), cache,
                         {logits.data() + begin * m.config().vocabulary, count, m.config().vocabulary}));
  }
  REQUIRE(cache.size() == tokens.size());
  return logits;
}

TEST_CASE("every architecture has the logits of transformers, whole, in chunks and token by token") {
  for (const std::string name : golden_models) {
    CAPTURE(name);
    const auto model = value_of(engine::model::open(golden_model(name)));
    const expectation expected{name};
    for (std::size_t s = 0; s < expected.sequences; ++s)
      for (const std::size_t chunk : {expected.length, std::size_t{7}, std::size_t{1}}) {
        CAPTURE(s, chunk);
        const auto logits = logits_of(model, expected.tokens[s], chunk, sinq::dtype::f32);
        CHECK(distance({logits.data(), expected.length, expected.vocabulary}, expected.of(s)) < logit_tolerance);
      }
  }
}

TEST_CASE("the comparison of logits notices a token, a position and a window that are wrong") {
  for (const std::string name : {"llama3", "mistral"}) {
    const auto model = value_of(engine::model::open(golden_model(name)));
    const expectation expected{name};
    auto tokens = expected.tokens[0];
    tokens[3] = (tokens[3] + 1) % static_cast<int>(expected.vocabulary);
    const auto logits = logits_of(model, tokens, tokens.size(), sinq::dtype::f32);
    CHECK(distance({logits.data(), expected.length, expected.vocabulary}, expected.of(0)) > 100 * logit_tolerance);
  }
}

TEST_CASE("keys and values of f16 change logits by what their rounding does") {
  for (const std::string name : golden_models) {
    CAPTURE(name);
    const auto model = value_of(engine::model::open(golden_model(name)));
    const expectation expected{name};
    const auto logits = logits_of(model, expected.tokens[0], 1, sinq::dtype::f16);
    const float apart = distance({logits.data(), expected.length, expected.vocabulary}, expected.of(0));
    CHECK(apart > 0);
    CHECK(apart < 1e-2f); // 2^-11 of keys and values, through two layers
  }
}

TEST_CASE("the likeliest token is that of transformers, step by step") {
  for (const std::string name : golden_models) {
    CAPTURE(name);
    const auto model = value_of(engine::model::open(golden_model(name)));
    const expectation expected{name};
    for (std::size_t s = 0; s < expected.sequences; ++s) {
      engine::kv_cache cache{model.config(), 64, sinq::dtype::f32};
      std::vector<float> logits(expected.vocabulary);
      std::vector<int> next = expected.tokens[s], found;
      while (found.size() < expected.continuation[s].size()) {
        require_ok(model.forward(next, cache, {logits.data(), 1, logits.size()}));
        found.push_back(static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
        next = {found.back()};
      }
      CHECK(found == expected.continuation[s]);
    }
  }
}

TEST_CASE("a cache that is cut goes on as if the rest had never been") {
  const auto model = value_of(engine::model::open(golden_model("llama")));
  const expectation expected{"llama"};
  const std::span<const int> tokens = expected.tokens[0];
  engine::kv_cache cache{model.config(), 24, sinq::dtype::f32};
  std::vector<float> logits(expected.vocabulary);
  require_ok(model.forward(tokens.first(10), cache, {}));
  require_ok(model.forward(tokens.first(9), cache, {}));
  cache.resize(10);
  require_ok(model.forward(tokens.subspan(10), cache, {logits.data(), 1, logits.size()}));
  CHECK(distance({logits.data(), 1, logits.size()}, expected.of(0).block(23, 0, 1, logits.size())) < logit_tolerance);
}

TEST_CASE("tokens that do not fit are refused and the cache stays") {
  const auto model = value_of(engine::model::open(golden_model("llama")));
  engine::kv_cache cache{model.config(), 4};
  require_ok(model.forward(std::vector<int>{1, 2, 3}, cache, {}));
  check_error(model.forward(std::vector<int>{1, 2}, cache, {}), sinq::errc::invalid_argument,
              {"2 tokens after 3", "context of 4"});
  check_error(model.forward(std::vector<int>{96}, cache, {}), sinq::errc::invalid_argument,
              {"token 96", "vocabulary of 96"});
  check_error(model.forward(std::vector<int>{-1}, cache, {}), sinq::errc::invalid_argument, {"token -1"});
  CHECK(cache.size() == 3);
}

} // namespace
