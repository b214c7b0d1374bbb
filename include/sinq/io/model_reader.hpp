#pragma once

#include "safetensors.hpp"
#include "weight_map.hpp"

#include <array>

namespace sinq::io {

/// Names of a model's files in a directory, as Hugging Face has them.
inline constexpr std::string_view model_file_name = "model.safetensors";
inline constexpr std::string_view model_index_name = "model.safetensors.index.json";
/// Beside the index of a checkpoint in the official format: everything about its quantized layers that is no tensor.
inline constexpr std::string_view model_meta_name = "model.safetensors.index.json.meta.json";

/// One tensor of a model: which of its files holds it, and where there.
struct model_tensor {
  std::size_t file = 0; ///< index into model_reader::files()
  tensor_info info;
};

/// A model in one safetensors file or in a directory of them, read in place. Copies share the mappings.
class model_reader {
public:
  /// Opens a `.safetensors` file, or a directory with `model.safetensors.index.json` and its shards, with
  /// `model.safetensors`, or with exactly one other `.safetensors` file; the first of these that is there.
  /// @errors         errc::not_found (path, shard, or no model in the directory; names it), errc::malformed (also: a
  ///                 tensor that the index puts in a shard that lacks it, one name in two shards, several files and no
  ///                 index), errc::unsupported, errc::io
  [[nodiscard]] static result<model_reader> open(const std::filesystem::path& path,
                                                 const safetensors_limits& limits = {}) {
    model_reader model;
    weight_map map;
    auto paths = find_files(path, limits, model, map);
    if (!paths) return std::move(paths).error();
    for (const std::filesystem::path& file : *paths) {
      auto opened = safetensors_file::open(file, limits);
      if (!opened) return std::move(opened).error();
      model.take(*std::move(opened));
    }
    if (auto checked = model.index_names(); !checked) return std::move(checked).error();
    if (auto checked = model.check_against(map); !checked) return std::move(checked).error();
    return model;
  }

  /// The files that hold the tensors, by name.
  [[nodiscard]] std::span<const safetensors_file> files() const { return files_; }
  /// All tensors in the order of files, then of bytes; those that only pad (is_padding) are left out.
  [[nodiscard]] std::span<const model_tensor> tensors() const { return tensors_; }
  /// The `__metadata__` of all files; where they differ, the first one's value.
  [[nodiscard]] const metadata_map& metadata() const { return metadata_; }
  /// The directory that was opened, or nothing for a single file.
  [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }

  /// The tensor of that name, or nullptr; valid as long as this object stays where it is.
  [[nodiscard]] const model_tensor* find(std::string_view name) const {
    const auto at =
        std::lower_bound(by_name_.begin(), by_name_.end(), name,
                         [this](std::size_t i, std::string_view key) { return tensors_[i].info.name < key; });
    if (at == by_name_.end() || tensors_[*at].info.name != name) return nullptr;
    return &tensors_[*at];
  }

  /// The tensor's bytes in the mapping, which they keep alive.
  /// @param tensor   one of tensors()
  [[nodiscard]] shared_bytes data(const model_tensor& tensor) const { return files_[tensor.file].data(tensor.info); }
  /// Hints that the tensor's bytes are no longer needed; see mapped_file::release.
  void release(const model_tensor& tensor) const { files_[tensor.file].release(tensor.info); }

  /// The directory's other files, which belong to the model without being weights (configuration, tokenizer,
  /// templates), by name: hidden files, subdirectories and weights in any known format are left out.
  /// @errors         errc::io
  [[nodiscard]] result<std::vector<std::filesystem::path>> side_files() const {
    if (directory_.empty()) return std::vector<std::filesystem::path>{};
    return list_files(directory_, [](const std::string& name) { return !is_weights(name); });
  }

private:
  model_reader() = default;

  /// Whether a file name is that of weights, or of an index to them.
  [[nodiscard]] static bool is_weights(std::string_view name) {
    constexpr std::array<std::string_view, 12> endings{".safetensors", ".index.json", ".index.json.meta.json",
                                                       ".bin",         ".gguf",       ".pt",
                                                       ".pth",         ".h5",         ".onnx",
                                                       ".msgpack",     ".ckpt",       ".ot"};
    return std::any_of(endings.begin(), endings.end(), [name](std::string_view e) { return name.ends_with(e); });
  }

  /// The regular, visible files of a directory whose names are wanted, sorted.
  template <class Wanted>
  [[nodiscard]] static result<std::vector<std::filesystem::path>> list_files(const std::filesystem::path& directory,
                                                                             Wanted wanted) {
    std::error_code failed;
    std::vector<std::filesystem::path> found;
    std::filesystem::directory_iterator at{directory, failed};
    for (; !failed && at != std::filesystem::directory_iterator{}; at.increment(failed)) {
      const std::string name = at->path().filename().string();
      std::error_code ignored; // a dangling link is not a regular file
      if (!name.starts_with('.') && wanted(name) && at->is_regular_file(ignored)) found.push_back(at->path());
    }
    if (failed) return system_failure(directory, "list the directory", failed.value());
    std::sort(found.begin(), found.end());
    return found;
  }

  /// The files to open, in order; sets the model's directory, and the map if there is an index.
  [[nodiscard]] static result<std::vector<std::filesystem::path>> find_files(const std::filesystem::path& path,
                                                                             const safetensors_limits& limits,
                                                                             model_reader& model, weight_map& map) {
    std::error_code ignored;
    if (!std::filesystem::is_directory(path, ignored)) return std::vector{path};
    model.directory_ = path;
    if (std::filesystem::exists(path / model_index_name, ignored)) {
      auto loaded = load_weight_map(path / model_index_name, limits);
      if (!loaded) return std::move(loaded).error();
      map = *std::move(loaded);
      return shards_of(path, map);
    }
    if (std::filesystem::exists(path / model_file_name, ignored)) return std::vector{path / model_file_name};
    auto found = list_files(path, [](const std::string& name) { return name.ends_with(".safetensors"); });
    if (!found) return found;
    if (found->empty())
      return make_error(errc::not_found, path.string(), ": the directory has no .safetensors file and no ",
                        model_index_name);
    if (found->size() > 1)
      return make_error(errc::malformed, path.string(), ": the directory has ", found->size(), " .safetensors files (",
                        (*found)[0].filename().string(), ", ", (*found)[1].filename().string(),
                        (found->size() > 2 ? ", ..." : ""), ") but no ", model_index_name, " that joins them");
    return found;
  }

  /// The files that an index names, each once, in order.
  [[nodiscard]] static result<std::vector<std::filesystem::path>> shards_of(const std::filesystem::path& directory,
                                                                            const weight_map& map) {
    std::map<std::string_view, std::string_view> shards; // to a tensor in it
    for (const auto& [tensor, file] : map) shards.try_emplace(file, tensor);
    std::vector<std::filesystem::path> paths;
    for (const auto& [file, tensor] : shards) {
      paths.push_back(directory / file);
      std::error_code ignored;
      if (!std::filesystem::exists(paths.back(), ignored))
        return make_error(errc::not_found, paths.back().string(), ": the shard is missing; ", model_index_name,
                          " puts tensor ", in_quotes(tensor), " in it");
    }
    return paths;
  }

  void take(safetensors_file&& file) {
    for (const tensor_info& tensor : file.tensors())
      if (!is_padding(tensor.name)) tensors_.push_back({files_.size(), tensor});
    metadata_.insert(file.metadata().begin(), file.metadata().end());
    files_.push_back(std::move(file));
  }

  /// Fills by_name_; refuses one name in two files.
  [[nodiscard]] result<void> index_names() {
    by_name_.resize(tensors_.size());
    std::iota(by_name_.begin(), by_name_.end(), std::size_t{0});
    const auto name = [this](std::size_t i) -> const std::string& { return tensors_[i].info.name; };
    std::sort(by_name_.begin(), by_name_.end(),
              [&](std::size_t a, std::size_t b) { return std::tie(name(a), a) < std::tie(name(b), b); });
    const auto twice = std::adjacent_find(by_name_.begin(), by_name_.end(),
                                          [&](std::size_t a, std::size_t b) { return name(a) == name(b); });
    if (twice == by_name_.end()) return {};
    return make_error(errc::malformed, files_[tensors_[*(twice + 1)].file].path().string(), ": tensor ",
                      in_quotes(name(*twice)), " is also in ", files_[tensors_[*twice].file].path().string());
  }

  /// Refuses a tensor that the index promises in a shard that does not have it.
  [[nodiscard]] result<void> check_against(const weight_map& map) const {
    for (const auto& [tensor, file] : map) {
      if (is_padding(tensor)) continue;
      const model_tensor* found = find(tensor);
      if (found == nullptr || files_[found->file].path() != directory_ / file)
        return make_error(errc::malformed, (directory_ / file).string(), ": tensor ", in_quotes(tensor),
                          " is not in this shard, where ", model_index_name, " puts it",
                          found == nullptr ? "" : "; it is in " + files_[found->file].path().string());
    }
    return {};
  }

  std::filesystem::path directory_;
  std::vector<safetensors_file> files_;
  std::vector<model_tensor> tensors_;
  std::vector<std::size_t> by_name_; ///< indices of tensors_, sorted by their names
  metadata_map metadata_;
};

} // namespace sinq::io
