#pragma once

#include <engine/model.hpp>
#include <engine/tokenizer.hpp>

#include <cstdint>
#include <vector>

namespace sinq_cli {

/// Texts [count][length] of random tokens; as many as have the tokens that are asked for, or a few more.
/// @errors  errc::invalid_argument (the tokenizer has no ordinary tokens)
[[nodiscard]] sinq::result<std::vector<std::vector<int>>> random_texts(const engine::model& model,
                                                                       const engine::tokenizer& tokenizer,
                                                                       std::size_t tokens, std::size_t length,
                                                                       std::uint64_t seed);

/// Texts of 256 tokens that the model writes itself, each from one of its more common tokens on; as many as have the
/// tokens that are asked for, or a few more.
/// @errors  those of random_texts and engine::own_texts
[[nodiscard]] sinq::result<std::vector<std::vector<int>>> own_texts(const engine::model& model,
                                                                    const engine::tokenizer& tokenizer,
                                                                    std::size_t tokens, std::uint64_t seed,
                                                                    const sinq::progress_callback& progress);

} // namespace sinq_cli
