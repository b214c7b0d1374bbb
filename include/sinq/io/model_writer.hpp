#pragma once

#include "model_reader.hpp"
#include "output_directory.hpp"
#include "safetensors_writer.hpp"

#include <set>

namespace sinq::io {

/// How a model is laid out in files.
struct model_writer_options {
  std::size_t shard_bytes = 5'000'000'000; ///< a directory's shards hold no more data, unless one tensor is larger
  safetensors_writer_options file;         ///< each shard's layout
  bool always_index = false;               ///< a directory's single file is a shard with an index too
};

/// Writes a model tensor by tensor to one safetensors file, or to a directory of shards with an index and side files.
/// Whichever it is appears at commit(), whole; without it nothing is left. Memory does not grow with the tensors'
/// sizes.
class model_writer {
public:
  /// Begins to write what will be the file `target`.
  /// @errors         as safetensors_writer::create
  [[nodiscard]] static result<model_writer> create_file(const std::filesystem::path& target,
                                                        const model_writer_options& options = {}) {
    auto file = safetensors_writer::create(target, options.file);
    if (!file) return std::move(file).error();
    model_writer writer{options};
    writer.shard_.emplace(*std::move(file));
    return writer;
  }

  /// Begins to write what will be the directory `target`: new, or an existing one in which a model is replaced.
  /// @errors         as output_directory::create, errc::invalid_argument (shard_bytes is 0; file options)
  [[nodiscard]] static result<model_writer> create_directory(const std::filesystem::path& target,
                                                             const model_writer_options& options = {}) {
    if (options.shard_bytes == 0)
      return make_error(errc::invalid_argument, target.string(), ": shard_bytes is 0, expected at least 1");
    auto directory = output_directory::create(target);
    if (!directory) return std::move(directory).error();
    model_writer writer{options};
    writer.directory_.emplace(*std::move(directory));
    if (auto done = writer.open_shard(); !done) return std::move(done).error();
    return writer;
  }

  /// The file or directory that will be written.
  [[nodiscard]] const std::filesystem::path& target() const {
    return directory_ ? directory_->target() : shard_->target();
  }

  /// Sets one entry of the `__metadata__` of every file; to be called before the first tensor.
  /// @errors         errc::invalid_argument (too late; not UTF-8)
  [[nodiscard]] result<void> set_metadata(std::string key, std::string value) {
    if (!shard_of_.empty())
      return make_error(errc::invalid_argument, target().string(), ": metadata ", in_quotes(key),
                        " must be set before the first tensor");
    if (auto done = shard_->set_metadata(key, value); !done) return done;
    metadata_.insert_or_assign(std::move(key), std::move(value));
    return {};
  }

  /// Sets one entry of the `__metadata__` of the file that the latest tensor is in, as what is told of that tensor.
  /// @errors         errc::invalid_argument (not UTF-8)
  [[nodiscard]] result<void> set_shard_metadata(std::string key, std::string value) {
    return shard_->set_metadata(std::move(key), std::move(value));
  }

  /// Puts the next tensors, `size_bytes` in all, into one file: begins a new shard now if they would not fit.
  /// @errors         as begin
  [[nodiscard]] result<void> keep_together(std::size_t size_bytes) {
    if (auto done = make_room(size_bytes); !done) return done;
    together_bytes_ = size_bytes;
    return {};
  }

  /// Writes a whole tensor; the arguments are those of safetensors_writer::add.
  /// @errors         as safetensors_writer::add, but names are unique over all shards
  [[nodiscard]] result<void> add(std::string_view name, dtype type, std::span<const std::size_t> shape,
                                 std::span<const byte> data, std::size_t alignment_bytes = default_alignment_bytes) {
    if (auto done = begin(name, type, shape, alignment_bytes); !done) return done;
    if (auto done = append(data); !done) return done;
    return end();
  }

  /// Begins a tensor that is produced piecewise: append() its bytes in order, then end().
  /// @errors         as add
  [[nodiscard]] result<void> begin(std::string_view name, dtype type, std::span<const std::size_t> shape,
                                   std::size_t alignment_bytes = default_alignment_bytes) {
    const std::size_t size = tensor_bytes(type, shape).value_or(0); // the shard refuses what overflows
    if (shard_of_.contains(std::string{name}))
      return make_error(errc::invalid_argument, target().string(), ": tensor ", in_quotes(name),
                        " is already in the model");
    if (size > together_bytes_) {
      if (auto done = make_room(size); !done) return done;
      together_bytes_ = size;
    }
    if (auto done = shard_->begin(name, type, shape, alignment_bytes); !done) return done;
    together_bytes_ -= size;
    total_bytes_ += size;
    shard_of_.emplace(name, finished_shards_);
    return {};
  }

  /// Adds bytes to the tensor that was begun.
  /// @errors         as safetensors_writer::append
  [[nodiscard]] result<void> append(std::span<const byte> data) { return shard_->append(data); }

  /// Ends the tensor that was begun.
  /// @errors         as safetensors_writer::end
  [[nodiscard]] result<void> end() { return shard_->end(); }

  /// Copies a file of the model that is not weights into the directory, under its own name.
  /// @errors         as write_side_file, and errc::not_found, errc::io for the source
  [[nodiscard]] result<void> copy_side_file(const std::filesystem::path& source) {
    auto file = mapped_file::open(source);
    if (!file) return std::move(file).error();
    return write_side_file(source.filename().string(), (*file)->bytes());
  }

  /// Writes a file of the model that is not weights into the directory.
  /// @errors         errc::invalid_argument (a single file has no side files; a name that is not one component, is
  ///                 taken, or is one of the model's), errc::io
  [[nodiscard]] result<void> write_side_file(const std::string& name, std::span<const byte> bytes) {
    if (!directory_)
      return make_error(errc::invalid_argument, target().string(), ": side file ", in_quotes(name),
                        " needs a directory as output");
    if (!detail::stays_inside(name) || std::filesystem::path{name}.has_parent_path() || name == "." ||
        is_model_name(name))
      return make_error(errc::invalid_argument, target().string(), ": a side file cannot have the name ",
                        in_quotes(name));
    if (!side_files_.insert(name).second)
      return make_error(errc::invalid_argument, target().string(), ": side file ", in_quotes(name),
                        " is written twice");
    auto file = output_file::create(directory_->staging() / name, target() / name);
    if (!file) return std::move(file).error();
    if (auto done = file->write(bytes); !done) return done;
    return file->commit();
  }

  /// Bytes of all tensors so far, without padding and headers.
  [[nodiscard]] std::size_t total_bytes() const { return total_bytes_; }

  /// Finishes all files and gives them their names; the writer is finished then. In an existing directory, model files
  /// of an earlier output that are not part of this one are removed.
  /// @errors         as safetensors_writer::commit and output_directory::commit
  [[nodiscard]] result<void> commit() {
    if (!directory_) return shard_->commit();
    if (auto done = close_shard(); !done) return done;
    std::set<std::string> names = side_files_;
    for (std::size_t i = 0; i < finished_shards_; ++i) {
      const std::string& name = *names.insert(shard_name(i, finished_shards_)).first;
      const std::filesystem::path& staging = directory_->staging();
      if (auto done = detail::rename_path(staging / part_name(i), staging / name); !done) return done;
    }
    const std::string last{has_index() ? model_index_name : model_file_name};
    if (has_index())
      if (auto done = write_index(); !done) return done;
    names.insert(last);
    std::vector<std::string> invalidating;
    std::vector<std::string> stale;
    if (directory_->replaces())
      if (auto done = find_earlier(names, invalidating, stale); !done) return done;
    return directory_->commit(invalidating, last, stale);
  }

private:
  explicit model_writer(const model_writer_options& options) : options_{options} {}

  /// Name of a shard while their number is unknown.
  [[nodiscard]] static std::string part_name(std::size_t i) { return "part-" + std::to_string(i); }

  [[nodiscard]] bool has_index() const { return finished_shards_ > 1 || options_.always_index; }

  /// Final name of shard i of `count`.
  [[nodiscard]] std::string shard_name(std::size_t i, std::size_t count) const {
    if (!has_index()) return std::string{model_file_name};
    char name[80];
    const int length = std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, count);
    return {name, static_cast<std::size_t>(length)};
  }

  /// Whether a writer of models would give a file that name: the single file, a shard, or the index.
  [[nodiscard]] static bool is_model_name(std::string_view name) {
    if (name == model_file_name || name == model_index_name) return true;
    std::string shape; // with every number as one '#'
    for (const char c : name)
      if (c < '0' || c > '9')
        shape.push_back(c);
      else if (!shape.ends_with('#'))
        shape.push_back('#');
    return shape == "model-#-of-#.safetensors" || shape == "part-#";
  }

  [[nodiscard]] result<void> open_shard() {
    auto opened =
        safetensors_writer::create(directory_->staging() / part_name(finished_shards_), options_.file, target());
    if (!opened) return std::move(opened).error();
    shard_.emplace(*std::move(opened));
    for (const auto& [key, value] : metadata_)
      if (auto done = shard_->set_metadata(key, value); !done) return done;
    return {};
  }

  [[nodiscard]] result<void> close_shard() {
    if (auto done = shard_->commit(); !done) return done;
    ++finished_shards_;
    return {};
  }

  /// Begins a new shard if the present one has tensors and no room for that many bytes more.
  [[nodiscard]] result<void> make_room(std::size_t size) {
    const std::size_t used = shard_->data_bytes();
    if (!directory_ || used == 0 || (used <= options_.shard_bytes && size <= options_.shard_bytes - used)) return {};
    if (auto done = close_shard(); !done) return done;
    return open_shard();
  }

  [[nodiscard]] result<void> write_index() const {
    nlohmann::json index{{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", nlohmann::json::object()}};
    for (const auto& [tensor, shard] : shard_of_) index["weight_map"][tensor] = shard_name(shard, finished_shards_);
    const std::string text = index.dump(2) + "\n";
    auto file = output_file::create(directory_->staging() / model_index_name, target() / model_index_name);
    if (!file) return std::move(file).error();
    if (auto done = file->write(std::as_bytes(std::span{text})); !done) return done;
    return file->commit();
  }

  /// What an earlier model left in the target: `stale` names are not part of the new one; an index is `invalidating` if
  /// files that it names are about to be replaced, so that a reader in between never mixes the two models.
  [[nodiscard]] result<void> find_earlier(const std::set<std::string>& names, std::vector<std::string>& invalidating,
                                          std::vector<std::string>& stale) const {
    std::error_code failed;
    bool replaces_shards = false;
    std::filesystem::directory_iterator at{directory_->target(), failed};
    for (; !failed && at != std::filesystem::directory_iterator{}; at.increment(failed)) {
      const std::string name = at->path().filename().string();
      if (!is_model_name(name) && name != model_meta_name) continue;
      const bool is_ours = names.contains(name);
      replaces_shards = replaces_shards || (is_ours && name.starts_with("model-"));
      if (!is_ours) stale.push_back(name);
    }
    if (failed) return system_failure(directory_->target(), "list the directory", failed.value());
    std::sort(stale.begin(), stale.end());
    if (replaces_shards) invalidating.emplace_back(model_index_name);
    return {};
  }

  model_writer_options options_;
  std::optional<output_directory> directory_; ///< none for a single file
  std::optional<safetensors_writer> shard_;   ///< the present one; closed before the directory is removed
  std::size_t finished_shards_ = 0;
  std::size_t together_bytes_ = 0; ///< what is left of keep_together's promise
  std::size_t total_bytes_ = 0;
  metadata_map metadata_;
  std::map<std::string, std::size_t> shard_of_; ///< by tensor
  std::set<std::string> side_files_;
};

} // namespace sinq::io
