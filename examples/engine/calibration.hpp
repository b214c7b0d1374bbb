#pragma once

#include "model.hpp"

#include <sinq/math/input_moments.hpp>

namespace engine {

/// Takes what is known of the inputs of a linear layer, by its name, as `model.layers.0.self_attn.q_proj`.
using moments_sink = std::function<sinq::result<void>(const std::string& name, const sinq::input_moments&)>;

/// Means over all tokens of all windows of the inputs x of each linear layer of the decoder: E[x_j^2], E|x_j| and, if
/// `full`, E[x x^T]. Layer by layer, so that memory holds the vectors of all tokens and the moments of one layer.
/// @param windows   [windows][tokens], all as long
/// @param progress  told the share of layers that are done
/// @errors          those of model::forward and of the sink
/// Numerics: products of a window in f32, sums over windows in f64.
[[nodiscard]] sinq::result<void> calibrate(const model& m, std::span<const std::vector<int>> windows, bool full,
                                           const moments_sink& sink, const sinq::progress_callback& progress = {});

/// Texts that the model writes itself at temperature 1, without an end: what it expects of its inputs, without any
/// data.
/// @param first  tokens to begin with, one for each text
/// @return       [first.size()][length]
[[nodiscard]] sinq::result<std::vector<std::vector<int>>> own_texts(const model& m, std::span<const int> first,
                                                                    std::size_t length, std::uint64_t seed,
                                                                    const sinq::progress_callback& progress = {});

} // namespace engine
