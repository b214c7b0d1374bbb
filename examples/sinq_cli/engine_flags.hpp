#pragma once

#include "report.hpp"

#include <engine/model.hpp>
#include <engine/tokenizer.hpp>

#include <CLI/CLI.hpp>

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace sinq_cli {

/// How a model is run, as told on the command line.
struct engine_flags {
  std::string precision = "auto";
  std::string method; ///< that quantizes float layers as they are read; empty: they stay
  int bits = 4;
  std::size_t group_size = 64;
  std::size_t threads = 0; ///< 0: one for each hardware thread
};

void add_engine_flags(CLI::App& app, engine_flags& flags);

/// Opens a model, to run as the flags say.
/// @param threads  outlive the model
/// @errors         those of engine::model::open
[[nodiscard]] sinq::result<engine::model> open_model(const std::string& directory, const engine_flags& flags,
                                                     sinq::executor& threads);

/// The tokens of a text file, cut into windows of a length; a rest that fills none is left out.
/// @param most  windows, or 0 for all
/// @errors      those of mapped_file::open; errc::invalid_argument (not one window), all of them naming the file
[[nodiscard]] sinq::result<std::vector<std::vector<int>>>
windows_of(const std::string& path, const engine::tokenizer& tokenizer, std::size_t length, std::size_t most);

/// What models are scored on, as told on the command line.
struct scoring_flags {
  engine_flags engine;
  std::string text, report;              ///< report: what was found, for machines; empty: none
  std::size_t window = 512, windows = 0; ///< tokens of a window; windows, 0: all
  bool quiet = false;
};

void add_scoring_flags(CLI::App& app, scoring_flags& flags);

/// Begins the report that the flags ask for.
/// @param models  that are read
/// @errors        those of json_report::create and model_reader::open; errc::invalid_argument (it would replace the
/// text,
///                or a file of a model)
[[nodiscard]] sinq::result<json_report> create_report(const scoring_flags& flags, std::span<const std::string> models);

/// What every report on windows says: the command, the text and how it was cut.
[[nodiscard]] nlohmann::json scoring_document(const char* command, const scoring_flags& flags, std::size_t windows);

/// Calls score for each window and shows how far it is, until one fails or the user stops it.
[[nodiscard]] sinq::result<void> score_windows(const std::vector<std::vector<int>>& windows, const scoring_flags& flags,
                                               const std::function<sinq::result<void>(std::span<const int>)>& score);

} // namespace sinq_cli
