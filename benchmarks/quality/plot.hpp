#pragma once

#include "results.hpp"

#include <string>
#include <vector>

namespace sinq_quality {

/// Whether a plot can be made.
/// @errors  errc::not_found if gnuplot is not in PATH
[[nodiscard]] sinq::result<void> check_gnuplot();

/// What gnuplot is told: for each set two panels, the error and the column-normalised error against bits per weight,
/// with the Pareto front of each as a line.
[[nodiscard]] std::string gnuplot_script(const std::vector<set_summary>& summaries, const std::string& target);

/// The plot as SVG.
/// @errors  errc::not_found (gnuplot), errc::io (gnuplot failed; the temporary folder cannot be written)
[[nodiscard]] sinq::result<std::string> draw_svg(const std::vector<set_summary>& summaries);

} // namespace sinq_quality
