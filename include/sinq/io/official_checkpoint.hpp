#pragma once

#include "official_config.hpp"
#include "official_reader.hpp"
#include "packed_cache.hpp"

#include <functional>
#include <map>

namespace sinq::io {

/// Whether a model is a directory with layers in the official format.
[[nodiscard]] inline bool is_official(const model_reader& model) {
  if (model.directory().empty()) return false;
  for (const model_tensor& tensor : model.tensors()) {
    if (!tensor.info.name.ends_with(official_codes_suffix)) continue;
    const std::string layer = tensor.info.name.substr(0, tensor.info.name.size() - official_codes_suffix.size());
    const std::string scale = layer + std::string{official_meta_infix} + "scale";
    if (model.find(scale) != nullptr || model.find(scale + ".x") != nullptr) return true;
  }
  return false;
}

/// Whether a tensor of an official checkpoint is a buffer that its reader wants and that no weight file needs.
[[nodiscard]] inline bool is_official_buffer(std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with("rotary_emb.original_inv_freq");
}

/// The quantized layers of an official checkpoint, checked when it is opened and unpacked when they are asked for.
/// Copies share what is unpacked; calls from several threads are safe.
class official_layers {
public:
  /// @pre     is_official(model)
  /// @errors  errc::not_found, errc::malformed, errc::unsupported: names the file, the layer or tensor, and the values
  [[nodiscard]] static result<official_layers> open(const model_reader& model) {
    const std::filesystem::path path = model.directory() / model_meta_name;
    const auto document = load_json_object(path);
    if (!document) return document.error();
    official_layers all;
    for (const auto& [name, entry] : document->items()) {
      if (!entry.is_object())
        return detail::unexpected_field("its entry", entry, "an object")
            .in("layer " + in_quotes(name))
            .in(path.string());
      if (!entry.contains("meta")) continue; // a plain layer's fields that are no tensors
      auto layer = parse_official_layer(name, entry["meta"]);
      if (!layer) return std::move(layer).error().in("layer " + in_quotes(name)).in(path.string());
      if (auto found = check_official_layer(model, *layer); !found) return std::move(found).error();
      all.layers_.emplace(name, *std::move(layer));
    }
    if (auto known = all.check_parts(model); !known) return std::move(known).error();
    if (auto read = all.read_config(model.directory() / config_name); !read) return std::move(read).error();
    return all;
  }

  /// The layer that a tensor is a part of, or nullptr.
  [[nodiscard]] const official_layer* layer_of_part(std::string_view tensor) const {
    std::size_t end = tensor.find(official_meta_infix);
    if (end == tensor.npos && tensor.ends_with(official_codes_suffix))
      end = tensor.size() - official_codes_suffix.size();
    return end == tensor.npos ? nullptr : find(tensor.substr(0, end));
  }
  /// The layer of that name, or nullptr.
  [[nodiscard]] const official_layer* find(std::string_view name) const {
    const auto at = layers_.find(name);
    return at == layers_.end() ? nullptr : &at->second;
  }
  /// Element type of a layer's weight: told with it, by the configuration, or else f32.
  [[nodiscard]] dtype type_of(const official_layer& layer) const { return layer.original.value_or(type_); }

  /// A layer's weight; stays where it is until it is released.
  [[nodiscard]] const packed_matrix& packed(const model_reader& model, const official_layer& layer) const {
    return unpacked_.find_or_make(layer.name, [&] { return unpack_official_layer(model, layer); });
  }
  void release(const model_reader& model, const official_layer& layer) const {
    unpacked_.release(layer.name);
    model.release(*model.find(layer.tensor(official_codes_suffix)));
  }

private:
  /// Refuses tensors that look like parts of layers and are none.
  [[nodiscard]] result<void> check_parts(const model_reader& model) const {
    constexpr std::array<std::string_view, 9> parts{"scale",  "scale.x", "scale.s", "scale.m", "zero",
                                                    "zero.x", "zero.s",  "zero.m",  "scale2"};
    for (const model_tensor& tensor : model.tensors()) {
      const std::string_view name = tensor.info.name;
      const std::size_t infix = name.find(official_meta_infix);
      if (infix == name.npos && !name.ends_with(official_codes_suffix)) continue;
      if (layer_of_part(name) == nullptr)
        return detail::wrong_tensor(model, tensor, "belongs to no layer of ", model_meta_name);
      if (infix == name.npos) continue;
      const std::string_view part = name.substr(infix + official_meta_infix.size());
      if (std::find(parts.begin(), parts.end(), part) == parts.end())
        return detail::wrong_tensor(model, tensor, "is no known part of a layer");
    }
    return {};
  }

  [[nodiscard]] result<void> read_config(const std::filesystem::path& path) {
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) return {};
    const auto config = load_json_object(path);
    if (!config) return config.error();
    type_ = config_dtype(*config).value_or(dtype::f32);
    return {};
  }

  std::map<std::string, official_layer, std::less<>> layers_;
  dtype type_ = dtype::f32;
  packed_cache unpacked_;
};

/// The text of an official checkpoint's configuration without what it says of quantization, for its weights restored.
/// @errors  those of load_json_object
[[nodiscard]] inline result<std::string> plain_config(const std::filesystem::path& path) {
  auto config = load_json_object(path);
  if (!config) return std::move(config).error();
  remove_quantization(*config);
  return json_text(*config);
}

} // namespace sinq::io
