#include "engine/calibration.hpp"

#include "engine/golden_models.hpp"
#include "engine/sampler.hpp"

#include <sinq/pack/pack.hpp>
#include <sinq/quant/quantize.hpp>

#include <array>
#include <map>
#include <set>

namespace {

using sinq_test::check_error;
using sinq_test::require_ok;
using sinq_test::value_of;

engine::model tiny_model(const std::string& name) {
  return value_of(engine::model::open(sinq_test::golden_model(name)));
}

using all_moments = std::map<std::string, sinq::input_moments>;

all_moments moments_of(const engine::model& m, const std::vector<std::vector<int>>& windows, bool full) {
  all_moments found;
  require_ok(engine::calibrate(m, windows, full, [&](const std::string& name, const sinq::input_moments& moments) {
    CHECK(found.emplace(name, moments).second);
    return sinq::result<void>{};
  }));
  return found;
}

const std::vector<std::vector<int>> two_windows{{5, 40, 13, 77, 2, 9, 31}, {90, 1, 1, 62, 8, 50, 3}};

/// What the first layers of a decoder are given, in double: norm(embedding).
Eigen::MatrixXd first_inputs(const engine::model& m) {
  const std::size_t hidden = m.config().hidden;
  Eigen::MatrixXd x(14, static_cast<Eigen::Index>(hidden));
  std::vector<float> row(hidden);
  for (std::size_t n = 0; n < 14; ++n) {
    m.weights().embedding.load(static_cast<std::size_t>(two_windows[n / 7][n % 7]), row);
    double squares = 0;
    for (const float value : row) squares += double{value} * double{value};
    const double size = std::sqrt(squares / static_cast<double>(hidden) + m.config().norm_eps);
    for (std::size_t j = 0; j < hidden; ++j)
      x(static_cast<Eigen::Index>(n), static_cast<Eigen::Index>(j)) =
          double{row[j]} * double{m.weights().layers[0].attention_norm[j]} / size;
  }
  return x;
}

/// The largest difference, of the largest value.
double apart(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) {
  REQUIRE((a.rows() == b.rows() && a.cols() == b.cols()));
  return (a - b).cwiseAbs().maxCoeff() / b.cwiseAbs().maxCoeff();
}
Eigen::MatrixXd as_row(const std::vector<float>& values) {
  return Eigen::Map<const Eigen::RowVectorXf>{values.data(), static_cast<Eigen::Index>(values.size())}.cast<double>();
}

constexpr double tolerance_of_moments = 1e-6; // inputs and products in f32, a few roundings of 2^-24

TEST_CASE("moments of the first inputs are those of the embeddings in double") {
  for (const std::string name : {"llama", "qwen3"}) {
    CAPTURE(name);
    const engine::model m = tiny_model(name);
    const all_moments found = moments_of(m, two_windows, true);
    const Eigen::MatrixXd x = first_inputs(m);
    for (const char* const layer : {"q_proj", "k_proj", "v_proj"}) {
      const sinq::input_moments& moments = found.at("model.layers.0.self_attn." + std::string{layer});
      CHECK(apart(as_row(moments.second_moment), x.cwiseAbs2().colwise().mean()) < tolerance_of_moments);
      CHECK(apart(as_row(moments.mean_abs), x.cwiseAbs().colwise().mean()) < tolerance_of_moments);
      CHECK(apart(moments.hessian.cast<double>(), x.transpose() * x / 14) < tolerance_of_moments);
      // one token less is noticed
      const Eigen::MatrixXd fewer = x.topRows(13);
      CHECK(apart(as_row(moments.second_moment), fewer.cwiseAbs2().colwise().mean()) > 1e-3);
      CHECK(apart(moments.hessian.cast<double>(), fewer.transpose() * fewer / 13) > 1e-3);
    }
  }
}

/// The moments at all stops of a walk on which each layer is given what `weight_of` makes of its name, if that is not
/// empty.
template <class WeightOf>
all_moments walked(const engine::model& m, WeightOf&& weight_of) {
  auto walk = value_of(engine::calibration_walk::begin(m, two_windows));
  all_moments found;
  while (walk.next()) {
    const auto moments = value_of(walk.measure(true));
    const std::vector<std::string> layers = walk.layers();
    for (std::size_t n = 0; n < layers.size(); ++n) {
      CHECK(found.emplace(layers[n], moments).second);
      if (std::optional<sinq::panel_matrix> weight = weight_of(layers[n])) walk.replace(n, *std::move(weight));
    }
  }
  return found;
}

/// Weights of a model in 4 bits, as its layer_quantizer makes them.
const sinq::quantize_options four_bits{.method = sinq::method::rtn, .bits = 4, .group_size = 32};
sinq::panel_matrix four_bit_panels(const sinq::io::safetensors_file& file, const std::string& layer) {
  const auto* const info = file.find(layer + ".weight");
  REQUIRE(info != nullptr);
  const auto bytes = file.data(*info);
  const sinq::weight_view w{bytes.data(), info->type, info->shape[0], info->shape[1]};
  return value_of(sinq::to_panels(value_of(sinq::pack(value_of(sinq::quantize(w, four_bits))))));
}

TEST_CASE("a walk shows the inputs that the decoder shows, and behind replaced layers those of the quantized model") {
  const engine::compute exact{.precision = sinq::precision::exact};
  for (const std::string name : {"llama", "mistral", "qwen2", "qwen3"}) {
    CAPTURE(name);
    const auto directory = sinq_test::golden_model(name);
    const auto m = value_of(engine::model::open(directory, exact));
    const engine::model_config& c = m.config();

    // in one pass: E[x_j^2] of each input, by layer and by layer_input
    std::vector<std::array<Eigen::RowVectorXd, 4>> squares(c.layers);
    engine::kv_cache cache{c, 7, sinq::dtype::f32};
    engine::decoder run{c, exact, 1, 0, 7};
    for (const std::vector<int>& window : two_windows) {
      engine::float_buffer x{7, c.hidden};
      m.embed(window, x);
      for (std::size_t n = 0; n < c.layers; ++n)
        require_ok(run(m.weights().layers[n], n, {&cache, 1}, x,
                       [&](engine::layer_input input, sinq::matrix_view<const float> shown) {
                         Eigen::RowVectorXd& to = squares[n][static_cast<std::size_t>(input)];
                         if (to.size() == 0) to.setZero(static_cast<Eigen::Index>(shown.cols()));
                         to += shown.eigen().cast<double>().cwiseAbs2().colwise().sum() / 14;
                       }));
    }
    const all_moments as_it_is = walked(m, [](const std::string&) { return std::optional<sinq::panel_matrix>{}; });
    const std::array<const char*, 4> layers{"self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"};
    for (std::size_t n = 0; n < c.layers; ++n)
      for (std::size_t input = 0; input < 4; ++input)
        CHECK(apart(as_row(as_it_is.at("model.layers." + std::to_string(n) + "." + layers[input]).second_moment),
                    squares[n][input]) < tolerance_of_moments);

    // the model whose layers are all quantized is what the walk goes through if it replaces all of them
    const auto file = value_of(sinq::io::safetensors_file::open(directory / "model.safetensors"));
    const auto quantized =
        value_of(engine::model::open(directory, exact, [](const std::string&) { return four_bits; }));
    const all_moments expected = moments_of(quantized, two_windows, true);
    const all_moments replaced =
        walked(m, [&](const std::string& layer) { return std::optional{four_bit_panels(file, layer)}; });
    CHECK(replaced.size() == 7 * c.layers);
    for (const auto& [layer, moments] : expected) {
      CAPTURE(layer);
      CHECK(apart(replaced.at(layer).hessian.cast<double>(), moments.hessian.cast<double>()) < tolerance_of_moments);
    }
    // a walk that does not replace, or forgets one layer, is noticed
    const std::string last = "model.layers." + std::to_string(c.layers - 1) + ".mlp.down_proj";
    CHECK(apart(as_it_is.at(last).hessian.cast<double>(), expected.at(last).hessian.cast<double>()) > 1e-3);
    const all_moments forgetful = walked(m, [&](const std::string& layer) {
      if (layer == "model.layers.0.self_attn.o_proj") return std::optional<sinq::panel_matrix>{};
      return std::optional{four_bit_panels(file, layer)};
    });
    CHECK(apart(forgetful.at(last).hessian.cast<double>(), expected.at(last).hessian.cast<double>()) > 1e-3);
  }
}

TEST_CASE("every linear layer has moments of its width that agree with each other") {
  for (const std::string name : {"llama", "mistral", "qwen2", "qwen3"}) {
    CAPTURE(name);
    const engine::model m = tiny_model(name);
    const engine::model_config& c = m.config();
    const all_moments found = moments_of(m, two_windows, true);
    CHECK(found.size() == 7 * c.layers);
    for (const std::string& layer : engine::linear_layers(c)) CHECK(found.contains(layer));
    std::set<std::size_t> widths;
    for (const auto& [layer, moments] : found) {
      CAPTURE(layer);
      require_ok(moments.check(moments.second_moment.size()));
      widths.insert(moments.second_moment.size());
      const Eigen::MatrixXd diagonal = moments.hessian.diagonal().transpose().cast<double>();
      CHECK(apart(diagonal, as_row(moments.second_moment)) < tolerance_of_moments);
      for (std::size_t j = 0; j < moments.mean_abs.size(); ++j) // Jensen
        CHECK(moments.mean_abs[j] * moments.mean_abs[j] <= moments.second_moment[j] * 1.00001f);
    }
    CHECK(widths == std::set<std::size_t>{c.hidden, c.heads * c.head_dim, c.intermediate});
    CHECK(moments_of(m, two_windows, false).begin()->second.hessian.size() == 0);
  }
}

TEST_CASE("several sequences that step together are those that run alone") {
  const engine::model m = tiny_model("qwen3");
  const std::vector<std::vector<int>> texts{{5, 40, 13}, {90, 1, 1}, {2, 2, 71}};
  const std::size_t vocabulary = m.config().vocabulary;
  std::vector<engine::kv_cache> caches;
  for (std::size_t n = 0; n < 3; ++n) caches.emplace_back(m.config(), 3, sinq::dtype::f32);
  std::vector<float> together(3 * vocabulary), alone(vocabulary);
  for (std::size_t n = 0; n < 3; ++n)
    require_ok(m.step(std::array{texts[0][n], texts[1][n], texts[2][n]}, caches, {together.data(), 3, vocabulary}));
  for (std::size_t s = 0; s < 3; ++s) {
    engine::kv_cache cache{m.config(), 3, sinq::dtype::f32};
    require_ok(m.forward(texts[s], cache, {alone.data(), 1, vocabulary}));
    float most = 0;
    for (std::size_t v = 0; v < vocabulary; ++v)
      most = std::max(most, std::fabs(alone[v] - together[s * vocabulary + v]));
    CHECK(most < 2e-5f); // as in model_test.cpp
  }
  check_error(m.step(std::vector<int>{1, 2, 3}, caches, {together.data(), 3, vocabulary}), sinq::errc::invalid_argument,
              {"1 tokens after 3", "context of 3"});
}

TEST_CASE("texts of a model's own begin as told, and the seed decides") {
  const engine::model m = tiny_model("llama");
  const std::vector<int> first{4, 4, 70};
  const auto texts = value_of(engine::own_texts(m, first, 12, 7));
  REQUIRE(texts.size() == 3);
  for (std::size_t s = 0; s < 3; ++s) {
    CHECK(texts[s].size() == 12);
    CHECK(texts[s][0] == first[s]);
  }
  CHECK(texts[0] != texts[1]);
  CHECK(value_of(engine::own_texts(m, first, 12, 7)) == texts);
  CHECK(value_of(engine::own_texts(m, first, 12, 8)) != texts);
  check_error(engine::own_texts(m, std::vector<int>{96}, 3, 1), sinq::errc::invalid_argument, {"token 96"});
}

TEST_CASE("calibration ends with the first failure, and when it is told to stop") {
  const engine::model m = tiny_model("llama");
  const auto keep = [](const std::string&, const sinq::input_moments&) { return sinq::result<void>{}; };
  check_error(engine::calibrate(m, std::vector<std::vector<int>>{{1, 96}}, false, keep), sinq::errc::invalid_argument,
              {"token 96"});
  const auto fail = [](const std::string& name, const sinq::input_moments&) -> sinq::result<void> {
    return sinq::make_error(sinq::errc::io, name);
  };
  check_error(engine::calibrate(m, two_windows, false, fail), sinq::errc::io, {"layers.0.self_attn.q_proj"});
  check_error(engine::calibrate(m, two_windows, false, keep, [](double) { return false; }), sinq::errc::cancelled, {});
  check_error(engine::own_texts(m, std::vector<int>{1}, 5, 1, [](double) { return false; }), sinq::errc::cancelled, {});
}

} // namespace
