#pragma once

/// A Llama as short as it can be, in f64: logits of all tokens from named weights and a configuration.

#include <Eigen/Core>
#include <nlohmann/json.hpp>

#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace sinq_test {

using matrix64 = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
/// A weight by its name, or nothing; vectors are one row.
using named_weights = std::function<std::optional<matrix64>(const std::string&)>;

class llama {
public:
  llama(const nlohmann::json& config, named_weights weights)
      : weights_{std::move(weights)}, layers_{config.at("num_hidden_layers")}, heads_{config.at("num_attention_heads")},
        kv_heads_{config.at("num_key_value_heads")}, head_dim_{config.at("head_dim")}, eps_{config.at("rms_norm_eps")},
        theta_{config.at("rope_parameters").at("rope_theta")} {}

  /// [tokens x vocabulary]
  [[nodiscard]] matrix64 logits(const std::vector<long>& tokens) const {
    const matrix64 table = weights_("model.embed_tokens.weight").value();
    matrix64 x(static_cast<Eigen::Index>(tokens.size()), table.cols());
    for (std::size_t n = 0; n < tokens.size(); ++n) x.row(static_cast<Eigen::Index>(n)) = table.row(tokens[n]);
    for (int l = 0; l < layers_; ++l) {
      const std::string layer = "model.layers." + std::to_string(l) + ".";
      x += attention(layer + "self_attn.", norm(x, layer + "input_layernorm.weight"));
      const matrix64 h = norm(x, layer + "post_attention_layernorm.weight");
      const matrix64 gate = linear(h, layer + "mlp.gate_proj");
      const matrix64 up = linear(h, layer + "mlp.up_proj");
      x += linear((gate.array() / (1 + (-gate.array()).exp()) * up.array()).matrix(), layer + "mlp.down_proj");
    }
    return linear(norm(x, "model.norm.weight"), "lm_head");
  }

private:
  [[nodiscard]] matrix64 linear(const matrix64& x, const std::string& name) const {
    matrix64 y = x * weights_(name + ".weight").value().transpose();
    if (const auto bias = weights_(name + ".bias")) y.rowwise() += bias->row(0);
    return y;
  }

  [[nodiscard]] matrix64 norm(const matrix64& x, const std::string& name) const {
    matrix64 y = x;
    for (Eigen::Index n = 0; n < x.rows(); ++n) y.row(n) /= std::sqrt(x.row(n).squaredNorm() / double(x.cols()) + eps_);
    return y.array().rowwise() * weights_(name).value().row(0).array();
  }

  /// Rotates pairs (k, k + d / 2) of each head by position times theta^(-2 k / d).
  void rotate(matrix64& x, int heads) const {
    const int half = head_dim_ / 2;
    for (Eigen::Index n = 0; n < x.rows(); ++n)
      for (int h = 0; h < heads; ++h)
        for (int k = 0; k < half; ++k) {
          const double angle = double(n) * std::pow(theta_, -2.0 * k / head_dim_);
          double& a = x(n, h * head_dim_ + k);
          double& b = x(n, h * head_dim_ + half + k);
          const double first = a * std::cos(angle) - b * std::sin(angle);
          b = b * std::cos(angle) + a * std::sin(angle);
          a = first;
        }
  }

  [[nodiscard]] matrix64 attention(const std::string& name, const matrix64& x) const {
    matrix64 q = linear(x, name + "q_proj");
    matrix64 k = linear(x, name + "k_proj");
    const matrix64 v = linear(x, name + "v_proj");
    rotate(q, heads_);
    rotate(k, kv_heads_);
    matrix64 out(x.rows(), heads_ * head_dim_);
    for (int h = 0; h < heads_; ++h) {
      const int from = h / (heads_ / kv_heads_) * head_dim_;
      matrix64 score = q.middleCols(h * head_dim_, head_dim_) * k.middleCols(from, head_dim_).transpose();
      score /= std::sqrt(double(head_dim_));
      for (Eigen::Index n = 0; n < x.rows(); ++n) {
        Eigen::RowVectorXd row = (score.row(n).head(n + 1).array() - score.row(n).head(n + 1).maxCoeff()).exp();
        row /= row.sum();
        out.row(n).segment(h * head_dim_, head_dim_) = row * v.middleCols(from, head_dim_).topRows(n + 1);
      }
    }
    return linear(out, name + "o_proj");
  }

  named_weights weights_;
  int layers_, heads_, kv_heads_, head_dim_;
  double eps_, theta_;
};

} // namespace sinq_test
