#pragma once

#include "calibration.hpp"
#include "progress.hpp"
#include "quantizer_flags.hpp"
#include "self_refinement.hpp"
#include "tensor_choice.hpp"

#include <sinq/io/checkpoint_parts.hpp>
#include <sinq/io/official_writer.hpp>
#include <sinq/metrics.hpp>

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <vector>

namespace sinq_cli {

/// What the command line asks for.
struct quantize_flags {
  std::string input, output, report, shard_size;
  std::string method = "sinq";
  std::string format = "native";
  std::string layout{to_string(sinq::io::code_layout::canonical)};
  std::string compat = "none";
  int bits = 4;
  quantizer_flags quantizer;
  choice_flags choice;
  self_flags self;
  bool dry_run = false;
  bool quiet = false;
};

/// What became of one quantized tensor.
struct quantize_outcome {
  std::string name;
  sinq::dtype type;
  sinq::matrix_format format;
  sinq::io::code_layout layout;
  std::string method;
  sinq::error_metrics error;
  double seconds; ///< of quantizing and packing

  [[nodiscard]] double weights() const { return static_cast<double>(format.rows) * static_cast<double>(format.cols); }
  [[nodiscard]] std::size_t bytes() const { return sinq::io::stored_bytes(format, layout); }
  [[nodiscard]] double bits_per_weight() const { return 8 * static_cast<double>(bytes()) / weights(); }
};

/// Everything that one run needs and finds.
struct quantize_job {
  const quantize_flags& asked;
  sinq::quantize_options options;
  sinq::io::model_reader input;
  calibration inputs;                 ///< what --moments names
  std::vector<sinq::plan_entry> plan; ///< for each of the input's tensors
  std::vector<quantize_outcome> quantized;
  stopwatch clock;
  std::optional<sinq::io::official_writer> official{}; ///< where the output is in the official format
  std::optional<self_refinement> self{};               ///< with --refine self

  /// Whether what a tensor is multiplied by is measured.
  [[nodiscard]] bool measures(std::size_t tensor) const {
    return self && self->weights.contains(input.tensors()[tensor].info.name);
  }
  /// How a tensor of the plan is quantized, but for its inputs.
  [[nodiscard]] sinq::quantize_options options_of(std::size_t tensor) const {
    sinq::quantize_options made = options;
    made.bits = plan[tensor].bits;
    if (measures(tensor)) made.refine = sinq::refine_mode::inputs;
    return made;
  }
  [[nodiscard]] sinq::io::code_layout layout() const { return sinq::io::parse_layout(asked.layout).value(); }
};

/// Everything about the job, for machines.
[[nodiscard]] nlohmann::json quantize_document(const quantize_job& work, std::size_t bytes_after);

/// The table at the end.
void print_summary(const quantize_job& work, std::size_t bytes_after);

/// The table of a dry run.
void print_plan(const quantize_job& work);

/// Bytes of all tensors as they will be, without headers and padding. @pre outcomes for all planned tensors
[[nodiscard]] std::size_t planned_bytes(const quantize_job& work);

} // namespace sinq_cli
