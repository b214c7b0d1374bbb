#pragma once

#include <engine/tokenizer.hpp>

#include <sinq/io/model_reader.hpp>
#include <sinq/io/model_writer.hpp>

#include <CLI/CLI.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>

namespace sinq_cli {

class progress_bar;
struct quantize_flags;
struct quantize_job;

/// Options of `--refine self` alone.
struct self_flags {
  std::optional<std::string> order;
  std::optional<std::size_t> tokens;
  std::optional<std::uint64_t> seed;

  [[nodiscard]] bool any() const { return order || tokens || seed; }
  [[nodiscard]] bool through_quantized() const { return order == "quantized"; }
  [[nodiscard]] std::size_t token_count() const { return tokens.value_or(8192); }
  [[nodiscard]] std::uint64_t first_seed() const { return seed.value_or(1); }
};

/// Adds them, and self to what --refine takes.
void add_self_flags(CLI::App& app, self_flags& flags);

/// What `--refine self` knows before it begins.
struct self_refinement {
  engine::tokenizer tokenizer;
  std::set<std::string, std::less<>> weights; ///< those whose inputs are measured, by tensor

  /// @return  nothing without `--refine self`
  /// @errors  errc::invalid_argument (a file instead of a directory; options of --refine self without it), those of
  ///          engine::read_config and tokenizer::open
  [[nodiscard]] static sinq::result<std::optional<self_refinement>> prepare(const quantize_flags& asked,
                                                                            const sinq::io::model_reader& input);
};

/// What measuring takes beside quantizing, in the progress bar's bytes. @pre work.self
[[nodiscard]] double measuring_work(const quantize_job& work);

/// Lets the model write texts and walks with them through its decoder: what the layers are given is measured, stop by
/// stop, and those of the plan are quantized with that and written. The texts then go on through the quantized layers
/// or, in the other order, the float ones.
/// @pre     work.self
/// @errors  those of engine::model::open, own_texts, calibration_walk and quantize_tensor
[[nodiscard]] sinq::result<void> quantize_decoder(quantize_job& work, sinq::io::model_writer& to,
                                                  progress_bar& progress);

} // namespace sinq_cli
