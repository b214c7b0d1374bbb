#include "trials.hpp"

#include "sinq_cli/progress.hpp"

#include <sinq/math/sinkhorn.hpp>
#include <sinq/metrics.hpp>
#include <sinq/pack/quantize_packed.hpp>

#include <algorithm>

namespace sinq_quality {

using sinq::errc;
using sinq::make_error;
using sinq::matrix_view;
using sinq::quantize_options;
using sinq::refine_mode;
using sinq::result;

std::vector<trial> choose_trials(const std::vector<std::string>& methods) {
  std::vector<trial> trials;
  for (const sinq::method_info& entry : sinq::method_table) {
    const bool asked = methods.empty() || std::find(methods.begin(), methods.end(), entry.name) != methods.end();
    if (entry.needs_levels || (!asked && entry.id != sinq::method::rtn)) continue;
    if (entry.id != sinq::method::sinq) {
      trials.push_back({entry.id, "", std::nullopt, 0, entry.needs_inputs});
      continue;
    }
    trials.push_back({entry.id, "none", refine_mode::none, 0, false});
    trials.push_back({entry.id, "weights", refine_mode::weights, 0, false});
    trials.push_back({entry.id, "weights aux6", refine_mode::weights, 6, false});
    trials.push_back({entry.id, "inputs", refine_mode::inputs, 0, true});
  }
  return trials;
}

namespace {

quantize_options options_of(const trial& t, int bits, std::size_t group_size) {
  quantize_options options;
  options.method = t.method;
  options.bits = bits;
  options.group_size = group_size;
  options.refine = t.refine;
  options.scale_bits = options.zero_bits = t.aux_bits;
  if (t.aux_bits != 0) options.col_scale = sinq::dtype::f8_e4m3;
  return options;
}

spread spread_of(matrix_view<const float> m) {
  return {kurtosis(m), static_cast<double>(imbalance(m))};
}

void add(const spread& tile, double count, spread& mean, spread& worst) {
  mean.kurtosis += tile.kurtosis / count;
  mean.imbalance += tile.imbalance / count;
  worst.kurtosis = std::max(worst.kurtosis, tile.kurtosis);
  worst.imbalance = std::max(worst.imbalance, tile.imbalance);
}

result<normalisation> normalise(matrix_view<const float> w, std::size_t group_size) {
  const std::size_t tiles = (w.cols() + group_size - 1) / group_size;
  normalisation found{group_size, spread_of(w), {}, {}, {}, {}};
  for (std::size_t g = 0; g < tiles; ++g) {
    const auto tile = w.block(0, g * group_size, w.rows(), std::min(group_size, w.cols() - g * group_size));
    const auto normalised = sinq::sinkhorn_normalizer<float>{}(tile);
    if (!normalised) return normalised.error();
    add(spread_of(tile), static_cast<double>(tiles), found.mean_before, found.worst_before);
    add(spread_of(normalised->matrix()), static_cast<double>(tiles), found.mean_after, found.worst_after);
  }
  return found;
}

/// A matrix with what all its trials need.
struct prepared_matrix {
  loaded_matrix matrix;
  std::vector<double> column_weights;
};

result<measurement> run_trial(const prepared_matrix& on, const trial& t, int bits, std::size_t group_size,
                              const sinq::run_options& run) {
  quantize_options options = options_of(t, bits, group_size);
  if (t.needs_inputs) options.inputs = &*on.matrix.inputs;
  options.run = run;
  const sinq::weight_view w = on.matrix.view();
  const sinq::run_options quiet{.threads = run.threads, .progress = {}};
  const sinq_cli::stopwatch clock;
  const auto packed = sinq::quantize_packed(w, options);
  if (!packed) return packed.error();
  const double seconds = clock.seconds();
  const auto error = sinq::measure_error(w, *packed, on.column_weights, on.matrix.measured_with(), quiet);
  if (!error) return error.error();
  if (!error->finite) return make_error(errc::not_representable, "the result is not finite");
  measurement m{.what = t,
                .bits = bits,
                .group_size = group_size,
                .error = error->relative_error,
                .column_error = error->weighted_relative_error,
                .bits_per_weight = sinq::bits_per_weight(*packed),
                .seconds = seconds,
                .weights = static_cast<double>(w.rows()) * static_cast<double>(w.cols()),
                .output_error = {},
                .error_of_rtn = {},
                .column_error_of_rtn = {},
                .output_error_of_rtn = {}};
  m.output_error = error->output_error;
  return m;
}

std::optional<double> ratio(std::optional<double> error, std::optional<double> of) {
  if (!error || !of || *of == 0) return std::nullopt;
  return *error / *of;
}

/// Sets the ratios to round-to-nearest of the same width and group size.
void compare_with_rtn(std::vector<measurement>& all) {
  for (measurement& m : all)
    for (const measurement& rtn : all) {
      if (rtn.what.method != sinq::method::rtn || rtn.bits != m.bits || rtn.group_size != m.group_size) continue;
      m.error_of_rtn = ratio(m.error, rtn.error);
      m.column_error_of_rtn = ratio(m.column_error, rtn.column_error);
      m.output_error_of_rtn = ratio(m.output_error, rtn.output_error);
    }
}

} // namespace

std::vector<trial> fitting(const std::vector<trial>& trials, int bits, bool has_inputs) {
  std::vector<trial> chosen;
  for (const trial& t : trials)
    if ((has_inputs || !t.needs_inputs) && check_options(options_of(t, bits, 64))) chosen.push_back(t);
  return chosen;
}

result<subject_report> try_all(const subject& on, const std::vector<trial>& trials, const trial_options& options,
                               std::vector<std::string>& skipped) {
  auto loaded = on.load();
  if (!loaded) return std::move(loaded).error().in(on.name);
  const std::vector<double> column_weights = sinq::column_normalizing_weights(loaded->view());
  const prepared_matrix prepared{*std::move(loaded), column_weights};
  std::vector<float> values(on.rows * on.cols);
  for (std::size_t i = 0; i < on.rows; ++i)
    prepared.matrix.view().load(i, 0, std::span{values}.subspan(i * on.cols, on.cols));
  subject_report report{on.set, on.name, on.rows, on.cols, {}, {}};
  for (const std::size_t group_size : options.group_sizes) {
    auto found = normalise({values.data(), on.rows, on.cols}, group_size);
    if (!found) return std::move(found).error().in(on.name);
    report.normalisations.push_back(*found);
    for (const int bits : options.bits)
      for (const trial& t : fitting(trials, bits, prepared.matrix.inputs.has_value())) {
        auto m = run_trial(prepared, t, bits, group_size, options.run);
        if (!m && t.needs_inputs && m.error().code == errc::invalid_argument) {
          skipped.push_back(t.label() + " on " + on.name + ": " + m.error().message);
          continue;
        }
        if (!m) return std::move(m).error().in(t.label()).in(on.name);
        report.measurements.push_back(*std::move(m));
      }
  }
  compare_with_rtn(report.measurements);
  return report;
}

} // namespace sinq_quality
