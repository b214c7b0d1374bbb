#pragma once

#include "attention.hpp"
#include "config.hpp"
#include "weights.hpp"

namespace engine {

/// A decoder-only model, ready to run.
class model {
public:
  /// Reads a directory: `config.json` and the weights, floats or what `sinq quantize` wrote.
  /// @errors  those of read_config, checkpoint::open and load_weights; names the directory
  [[nodiscard]] static sinq::result<model> open(const std::filesystem::path& directory, const compute& with = {},
                                                const layer_quantizer& quantize = {});

  [[nodiscard]] const model_config& config() const { return config_; }
  [[nodiscard]] const model_weights& weights() const { return weights_; }

  /// Runs tokens that follow those in the cache, some at a time.
  /// @param logits  [n x vocabulary], of the last n tokens, n <= tokens.size()
  /// @errors  errc::invalid_argument (a token that is not in the vocabulary, more tokens than the cache has room for;
  ///          the cache stays as it was), those of matmul
  [[nodiscard]] sinq::result<void> forward(std::span<const int> tokens, kv_cache& cache,
                                           sinq::matrix_view<float> logits) const;

private:
  model(model_config config, model_weights weights, const compute& with)
      : config_{std::move(config)}, weights_{std::move(weights)}, with_{with} {}

  model_config config_;
  model_weights weights_;
  compute with_;
};

} // namespace engine
