#pragma once

#include "../pack/to_packed.hpp"
#include "checkpoint_parts.hpp"
#include "model_reader.hpp"
#include "official_checkpoint.hpp"
#include "packed_cache.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace sinq::io {

/// A tensor of a model as its user sees it: stored as it was, or quantized.
struct checkpoint_tensor {
  std::string name;
  dtype type = dtype::f32;        ///< of the original
  std::vector<std::size_t> shape; ///< of the original
  bool quantized = false;
};

namespace detail {

/// The same bytes on a 64-byte boundary of at least `alignment`: copied only if a strange writer did not align them.
[[nodiscard]] inline shared_bytes aligned(shared_bytes bytes, std::size_t alignment) {
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignment == 0) return bytes;
  aligned_buffer<byte> copy{bytes.size(), aligned_buffer<byte>::uninitialized};
  std::memcpy(copy.data(), bytes.data(), bytes.size());
  return shared_bytes{std::move(copy)};
}

} // namespace detail

/// A model, quantized or not, as its user sees it. Nothing is read before it is asked for; packed matrices and panels
/// lie in the mapped files, which they keep alive.
class checkpoint {
public:
  /// Opens a file or directory as model_reader does and checks every description in it. A directory in the official
  /// format is a checkpoint too: its layers are the tensors LAYER.weight, converted when they are asked for.
  /// @errors  those of model_reader::open; errc::unsupported (another version, grid or layout), errc::malformed (a
  ///          description that cannot be read, or whose tensors are missing or have other types or shapes)
  [[nodiscard]] static result<checkpoint> open(const std::filesystem::path& path,
                                               const safetensors_limits& limits = {}) {
    auto model = model_reader::open(path, limits);
    if (!model) return std::move(model).error();
    checkpoint opened{*std::move(model)};
    const bool native = opened.model_.metadata().contains(std::string{checkpoint_version_key});
    if (!native && sinq::io::is_official(opened.model_)) {
      if (auto done = opened.index_official(); !done) return std::move(done).error();
    } else if (auto done = opened.index(); !done) {
      return std::move(done).error().in(path.string());
    }
    if (auto done = opened.index_names(); !done) return std::move(done).error().in(path.string());
    return opened;
  }

  /// All tensors in the order of the files; a quantized one stands where its codes are.
  [[nodiscard]] std::span<const checkpoint_tensor> tensors() const { return tensors_; }
  [[nodiscard]] const model_reader& model() const { return model_; }
  /// True if there are quantized tensors, in the native format or in the official one.
  [[nodiscard]] bool is_quantized() const { return !quantized_.empty() || official_.has_value(); }
  /// True if they are in the official format.
  [[nodiscard]] bool is_official() const { return official_.has_value(); }

  /// The tensor of that name, or nullptr; valid as long as this object stays where it is.
  [[nodiscard]] const checkpoint_tensor* find(std::string_view name) const {
    const auto at = by_name_.find(name);
    return at == by_name_.end() ? nullptr : &tensors_[at->second];
  }
  /// Bytes of a tensor that is not quantized. @pre tensor is one of tensors() and not quantized
  [[nodiscard]] shared_bytes data(const checkpoint_tensor& tensor) const {
    return model_.data(*model_.find(tensor.name));
  }
  /// The stored tensor, or the one that holds the codes. @pre tensor is one of tensors()
  [[nodiscard]] const model_tensor& stored(const checkpoint_tensor& tensor) const {
    if (!tensor.quantized) return *model_.find(tensor.name);
    return *model_.find(official_ ? layer(tensor).tensor(official_codes_suffix)
                                  : detail::joined(tensor.name, detail::codes_suffix));
  }
  /// How a quantized tensor is held, and its method; nothing is read. @pre tensor is one of tensors() and quantized
  [[nodiscard]] const matrix_format& format(const checkpoint_tensor& tensor) const {
    return official_ ? layer(tensor).format : parts(tensor.name).format;
  }
  [[nodiscard]] const std::string& method(const checkpoint_tensor& tensor) const {
    return official_ ? layer(tensor).method : parts(tensor.name).method;
  }
  /// The layout in which a quantized tensor is read in place; in the official format, which is always converted, the
  /// canonical one. @pre tensor is one of tensors() and quantized
  [[nodiscard]] code_layout layout(const checkpoint_tensor& tensor) const {
    const bool in_panels = !official_ && std::holds_alternative<panel_matrix>(quantized(tensor.name));
    return in_panels ? code_layout::panels : code_layout::canonical;
  }
  /// A quantized tensor: in place, or, stored in panels or in the official format, converted and kept until it is
  /// released. @pre tensor is one of tensors() and quantized
  /// @param threads  that turn panels into rows; nullptr: default_executor()
  [[nodiscard]] const packed_matrix& packed(const checkpoint_tensor& tensor, executor* threads = nullptr) const {
    if (official_) return official_->packed(model_, layer(tensor));
    const stored_matrix& stored = quantized(tensor.name);
    if (const auto* const p = std::get_if<packed_matrix>(&stored)) return *p;
    return converted_.find_or_make(tensor.name, [&] {
      return to_packed(std::get<panel_matrix>(stored), {.threads = threads, .progress = {}}).value();
    });
  }
  /// A quantized tensor as `matmul` wants it: in place if it is stored in panels, otherwise arranged anew with each
  /// call from packed(tensor), which can be released then. @pre tensor is one of tensors() and quantized
  /// @errors  those of to_panels
  [[nodiscard]] result<panel_matrix> panels(const checkpoint_tensor& tensor, const run_options& run = {}) const {
    if (layout(tensor) == code_layout::panels) return std::get<panel_matrix>(quantized(tensor.name));
    return to_panels(packed(tensor, run.threads), run);
  }
  /// Hints that a tensor's bytes are no longer needed; they are read again if they are. What packed() gave of a tensor
  /// that it converted is gone.
  void release(const checkpoint_tensor& tensor) const {
    if (tensor.quantized && official_) return official_->release(model_, layer(tensor));
    if (!tensor.quantized) return model_.release(*model_.find(tensor.name));
    converted_.release(tensor.name);
    for (const std::string_view suffix : part_suffixes)
      if (const model_tensor* part = model_.find(detail::joined(tensor.name, suffix)); part != nullptr)
        model_.release(*part);
  }

private:
  using stored_matrix = std::variant<packed_matrix, panel_matrix>;

  explicit checkpoint(model_reader model) : model_{std::move(model)} {}

  [[nodiscard]] const stored_matrix& quantized(const std::string& name) const { return quantized_.find(name)->second; }
  [[nodiscard]] const matrix_parts& parts(const std::string& name) const {
    return std::visit([](const auto& held) -> const matrix_parts& { return held; }, quantized(name));
  }

  [[nodiscard]] result<void> index() {
    const auto version = model_.metadata().find(std::string{checkpoint_version_key});
    first_version_ = version != model_.metadata().end() && version->second == "1";
    if (version != model_.metadata().end() && !first_version_ && version->second != checkpoint_version)
      return make_error(errc::unsupported, "the checkpoint has version ", in_quotes(version->second),
                        ", expected 1 or ", checkpoint_version);
    std::map<std::string, std::string> stands_for; // codes tensor -> name; other parts -> ""
    std::map<std::string, dtype> original;
    for (const auto& [key, text] : model_.metadata()) {
      if (version == model_.metadata().end() || !key.starts_with(checkpoint_tensor_prefix)) continue;
      const std::string name = key.substr(checkpoint_tensor_prefix.size());
      const auto loaded = load(name, text, original);
      if (!loaded) return error{loaded.error()}.in("tensor " + in_quotes(name));
      for (const detail::part_layout& part : *loaded) stands_for.emplace(detail::joined(name, part.suffix), "");
      stands_for[detail::joined(name, detail::codes_suffix)] = name;
    }
    for (const model_tensor& tensor : model_.tensors()) {
      const auto part = stands_for.find(tensor.info.name);
      if (part == stands_for.end()) {
        tensors_.push_back({tensor.info.name, tensor.info.type, tensor.info.shape, false});
      } else if (!part->second.empty()) {
        const matrix_format& f = parts(part->second).format;
        tensors_.push_back({part->second, original[part->second], {f.rows, f.cols}, true});
      }
    }
    return {};
  }

  [[nodiscard]] result<void> index_official() {
    auto layers = official_layers::open(model_);
    if (!layers) return std::move(layers).error();
    official_ = *std::move(layers);
    for (const model_tensor& tensor : model_.tensors()) {
      const official_layer* const part = official_->layer_of_part(tensor.info.name);
      if (part == nullptr) {
        if (!is_official_buffer(tensor.info.name))
          tensors_.push_back({tensor.info.name, tensor.info.type, tensor.info.shape, false});
      } else if (tensor.info.name.ends_with(official_codes_suffix)) {
        const matrix_format& f = part->format;
        tensors_.push_back({part->tensor(official_weight_suffix), official_->type_of(*part), {f.rows, f.cols}, true});
      }
    }
    return {};
  }

  [[nodiscard]] result<void> index_names() {
    for (std::size_t i = 0; i < tensors_.size(); ++i)
      if (!by_name_.emplace(tensors_[i].name, i).second)
        return make_error(errc::malformed, "tensor ", in_quotes(tensors_[i].name), " is there plain and quantized");
    return {};
  }

  /// The official layer behind a quantized tensor.
  [[nodiscard]] const official_layer& layer(const checkpoint_tensor& tensor) const {
    std::string_view name = tensor.name;
    name.remove_suffix(official_weight_suffix.size());
    return *official_->find(name);
  }

  /// Finds and checks the parts of one quantized tensor; returns what they should be.
  [[nodiscard]] result<std::vector<detail::part_layout>> load(const std::string& name, const std::string& text,
                                                              std::map<std::string, dtype>& original) {
    auto d = detail::parse_description(text, first_version_);
    if (!d) return std::move(d).error();
    matrix_parts p;
    p.format = d->format;
    p.method = std::move(d->method);
    matrix_format& f = p.format;
    bool has_aux = false;
    std::vector<detail::part_layout> all = detail::parts_of(d->format, d->layout);
    for (detail::part_layout& expected : all) {
      if (expected.is_aux && has_aux) expected.types = {storage(f.aux)};
      const auto type = part(name, expected, p.*expected.bytes);
      if (!type) return type.error();
      has_aux |= expected.is_aux;
      if (expected.is_aux)
        f.aux = *type == dtype::f16 ? aux_dtype::f16 : *type == dtype::bf16 ? aux_dtype::bf16 : aux_dtype::f32;
      if (expected.suffix == detail::col_scale_suffix) f.col_scale_type = *type;
    }
    if (!f.has_col_scale) f.col_scale_type = storage(f.aux);
    if (auto done = keep(name, std::move(p), d->layout); !done) return std::move(done).error();
    original.emplace(name, d->original);
    return all;
  }

  [[nodiscard]] result<void> keep(const std::string& name, matrix_parts&& p, code_layout layout) {
    if (layout == code_layout::panels) {
      panel_matrix w{std::move(p)};
      if (auto done = check_panels(w); !done) return done;
      quantized_.emplace(name, std::move(w));
      return {};
    }
    packed_matrix packed{std::move(p)};
    if (auto done = check_packed(packed); !done) return done;
    quantized_.emplace(name, std::move(packed));
    return {};
  }

  /// One part's bytes; returns its element type.
  [[nodiscard]] result<dtype> part(const std::string& name, const detail::part_layout& expected,
                                   shared_bytes& bytes) const {
    const std::string part_name = detail::joined(name, expected.suffix);
    const model_tensor* tensor = model_.find(part_name);
    if (tensor == nullptr) return make_error(errc::malformed, "its part ", in_quotes(part_name), " is missing");
    if (tensor->info.shape != expected.shape)
      return make_error(errc::malformed, "its part ", in_quotes(part_name), " has shape ",
                        to_string(tensor->info.shape), ", expected ", to_string(expected.shape));
    if (std::find(expected.types.begin(), expected.types.end(), tensor->info.type) == expected.types.end())
      return make_error(errc::malformed, "its part ", in_quotes(part_name), " has type ", to_string(tensor->info.type),
                        ", expected ", type_names(expected.types));
    bytes = detail::aligned(model_.data(*tensor), size_bytes(tensor->info.type));
    return tensor->info.type;
  }

  [[nodiscard]] static std::string type_names(const std::vector<dtype>& types) {
    std::string text;
    for (std::size_t n = 0; n < types.size(); ++n)
      text += (n == 0 ? "" : n + 1 == types.size() ? " or " : ", ") + std::string{to_string(types[n])};
    return text;
  }

  model_reader model_;
  bool first_version_ = false;
  std::vector<checkpoint_tensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
  std::map<std::string, stored_matrix, std::less<>> quantized_;
  packed_cache converted_; ///< of tensors that are stored in panels
  std::optional<official_layers> official_;
};

} // namespace sinq::io
