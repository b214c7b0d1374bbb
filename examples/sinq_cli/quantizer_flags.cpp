#include "quantizer_flags.hpp"

#include "calibration.hpp"

namespace sinq_cli {

void add_threads_flag(CLI::App& app, std::size_t& threads) {
  app.add_option("--threads", threads, "Threads; without this, one for each hardware thread")
      ->check(CLI::Range(1, 1024));
}

void add_quantizer_flags(CLI::App& app, quantizer_flags& flags) {
  CLI::Option* const group = app.add_option("--group-size", flags.group_size, "Columns that share a scale")
                                 ->check(CLI::PositiveNumber)
                                 ->capture_default_str();
  app.add_option("--tile", flags.tile, "Square tiles: groups of that many columns, a t for that many rows")
      ->check(CLI::PositiveNumber)
      ->excludes(group);
  app.add_option("--aux-dtype", flags.aux, "Type of scales, zero points and column scales")
      ->check(CLI::IsMember({"f16", "bf16", "f32"}))
      ->capture_default_str();
  app.add_flag("--symmetric", flags.symmetric, "No zero points: levels centred on 0");
  app.add_option("--zero", flags.zero, "Zero points: rounded to whole steps, or fractional")
      ->check(CLI::IsMember({"rounded", "fractional"}))
      ->capture_default_str();
  app.add_option("--shift", flags.shift, "Zero of nf4, nf3 and codebook groups: on their mean, or none")
      ->check(CLI::IsMember({"mean", "none"}))
      ->capture_default_str();
  app.add_option("--levels", flags.levels, "The 2^bits levels of codebook methods, rising, as -1,-0.3,0.2,1")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->take_all();
  add_moments_flag(app, flags.moments);
  app.add_option(
         "--refine", flags.refine,
         "Fit scales, zero points and codes to the weighted error: none; weights, guessing from the weights what "
         "matters; or a FILE of moments as for --moments. Without this, sinq is refined, by --moments if there "
         "are any, and the other methods are not")
      ->type_name("none|weights|FILE");
  app.add_flag("--no-feedback", flags.no_feedback,
               "Refine by moments without error feedback, even if there is a hessian");
  app.add_option("--preset", flags.preset,
                 "A size in bits a weight: sets --bits, --group-size, --scale-bits, --zero-bits")
      ->check(CLI::IsMember(preset_names()));
  app.add_option("--scale-bits", flags.scale_bits, "Quantize scales to 4, 5, 6 or 8 bits")
      ->check(CLI::IsMember({4, 5, 6, 8}));
  app.add_option("--zero-bits", flags.zero_bits, "Quantize zero points to 4, 5, 6 or 8 bits")
      ->check(CLI::IsMember({4, 5, 6, 8}));
  app.add_option("--super-group", flags.super_group,
                 "Groups whose quantized scales share a scale; without this, all of a row, or about 64")
      ->check(CLI::PositiveNumber);
  app.add_option("--t-dtype", flags.col_scale,
                 "Type of column scales; without this, f8 beside quantized scales, or as "
                 "--aux-dtype")
      ->check(CLI::IsMember({"f16", "bf16", "f32", "f8"}));
  app.add_option("--iterations", flags.iterations, "Sinkhorn iterations, at most")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  app.add_option("--sinkhorn", flags.sinkhorn,
                 "How Sinkhorn moves: alternating, rows and then columns, or reference, both at once as in the paper. "
                 "Without this, alternating, but reference where results are refined and for sinq_hqq")
      ->check(CLI::IsMember({"alternating", "reference"}));
  add_threads_flag(app, flags.threads);
}

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const sinq::preset& entry : sinq::preset_table) names.emplace_back(entry.name);
  return names;
}

std::vector<std::string> method_names() {
  std::vector<std::string> names;
  for (const sinq::method_info& entry : sinq::method_table) names.emplace_back(entry.name);
  return names;
}

sinq::quantize_options to_options(const quantizer_flags& flags) {
  sinq::quantize_options options;
  options.group_size = flags.tile != 0 ? flags.tile : flags.group_size;
  options.tile_rows = flags.tile;
  options.aux = flags.aux == "f16"    ? sinq::aux_dtype::f16
                : flags.aux == "bf16" ? sinq::aux_dtype::bf16
                                      : sinq::aux_dtype::f32;
  options.symmetric = flags.symmetric;
  options.zero = flags.zero == "rounded" ? sinq::zero_mode::rounded : sinq::zero_mode::fractional;
  options.sinkhorn.iterations = flags.iterations;
  if (!flags.sinkhorn.empty())
    options.sinkhorn.rule =
        flags.sinkhorn == "reference" ? sinq::sinkhorn_rule::reference : sinq::sinkhorn_rule::alternating;
  options.shift = flags.shift == "mean" ? sinq::codebook_shift::mean : sinq::codebook_shift::none;
  options.levels = flags.levels;
  options.refinement_feedback = !flags.no_feedback;
  options.scale_bits = flags.scale_bits;
  options.zero_bits = flags.zero_bits;
  options.super_group = flags.super_group;
  if (flags.col_scale == "f8") options.col_scale = sinq::dtype::f8_e4m3;
  if (flags.col_scale == "f16") options.col_scale = sinq::dtype::f16;
  if (flags.col_scale == "bf16") options.col_scale = sinq::dtype::bf16;
  if (flags.col_scale == "f32") options.col_scale = sinq::dtype::f32;
  if (!flags.refine.empty() && flags.refine != refine_self)
    options.refine = flags.refine == "none"      ? sinq::refine_mode::none
                     : flags.refine == "weights" ? sinq::refine_mode::weights
                                                 : sinq::refine_mode::inputs;
  if (const auto preset = sinq::parse_preset(flags.preset)) options = (*preset)(options);
  return options;
}

std::string moments_path(const quantizer_flags& flags) {
  const bool names_file =
      !flags.refine.empty() && flags.refine != "none" && flags.refine != "weights" && flags.refine != refine_self;
  return names_file ? flags.refine : flags.moments;
}

} // namespace sinq_cli
