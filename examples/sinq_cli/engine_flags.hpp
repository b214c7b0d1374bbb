#pragma once

#include <engine/model.hpp>
#include <engine/tokenizer.hpp>

#include <CLI/CLI.hpp>

#include <memory>
#include <string>

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

/// A model and the threads that it runs on.
class running_model {
public:
  /// @errors  those of engine::model::open
  [[nodiscard]] static sinq::result<running_model> open(const std::string& directory, const engine_flags& flags,
                                                        std::shared_ptr<sinq::executor> threads);

  [[nodiscard]] const engine::model& model() const { return *model_; }
  [[nodiscard]] const engine::compute& with() const { return with_; }

private:
  running_model() = default;

  std::shared_ptr<sinq::executor> threads_;
  engine::compute with_;
  std::shared_ptr<engine::model> model_;
};

/// The tokens of a text file, cut into windows of a length; a rest that fills none is left out.
/// @param most  windows, or 0 for all
/// @errors      those of mapped_file::open; errc::invalid_argument (not one window), all of them naming the file
[[nodiscard]] sinq::result<std::vector<std::vector<int>>>
windows_of(const std::string& path, const engine::tokenizer& tokenizer, std::size_t length, std::size_t most);

} // namespace sinq_cli
