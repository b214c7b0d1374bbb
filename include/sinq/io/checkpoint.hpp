#pragma once

#include "../pack/layout.hpp"
#include "model_reader.hpp"
#include "model_writer.hpp"

#include <nlohmann/json.hpp>

#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace sinq::io {

/// Version of the native checkpoint that is written and read; `__metadata__` holds it under `checkpoint_version_key`.
inline constexpr std::string_view checkpoint_version = "1";
inline constexpr std::string_view checkpoint_version_key = "sinq.version";
/// The description of quantized tensor NAME is in `__metadata__` under this prefix and NAME.
inline constexpr std::string_view checkpoint_tensor_prefix = "sinq.tensor.";

/// A tensor of a model as its user sees it: stored as it was, or quantized.
struct checkpoint_tensor {
  std::string name;
  dtype type = dtype::f32;        ///< of the original
  std::vector<std::size_t> shape; ///< of the original
  bool quantized = false;
};

namespace detail {

inline constexpr std::string_view codes_suffix = ".sinq.codes";
inline constexpr std::string_view scale_suffix = ".sinq.scale";
inline constexpr std::string_view zero_suffix = ".sinq.zero";
inline constexpr std::string_view col_scale_suffix = ".sinq.t";

[[nodiscard]] inline std::string joined(std::string_view a, std::string_view b) {
  return std::string{a}.append(b);
}

/// What the format calls the only grid and layout of version 1.
inline constexpr std::string_view uniform_grid = "uniform";
inline constexpr std::string_view canonical_layout = "canonical";
inline constexpr std::size_t max_description_bytes = 4096;

[[nodiscard]] inline std::string describe(const packed_matrix& p, dtype original) {
  const nlohmann::json text{
      {"method", p.method},          {"bits", p.format.bits},        {"group_size", p.format.group_size},
      {"grid", uniform_grid},        {"layout", canonical_layout},   {"zero", p.format.has_zero},
      {"t", p.format.has_col_scale}, {"dtype", to_string(original)}, {"shape", {p.format.rows, p.format.cols}}};
  return text.dump();
}

/// A description as read: everything but the storage types, which the tensors themselves have.
struct description {
  matrix_format format;
  dtype original = dtype::f32;
  std::string method;
};

/// Reads one description; throws nlohmann::json::exception for anything but the fields expected.
[[nodiscard]] inline result<description> parse_fields(const std::string& text) {
  const nlohmann::json fields = nlohmann::json::parse(text);
  const auto number = [&](const nlohmann::json& value) -> std::size_t {
    return value.is_number_unsigned() ? value.get<std::size_t>()
                                      : throw nlohmann::json::other_error::create(
                                            501, "expected a whole number, found " + value.dump(), &value);
  };
  description d;
  d.method = fields.at("method").get<std::string>();
  d.format.bits = static_cast<int>(std::min<std::size_t>(number(fields.at("bits")), 255));
  d.format.group_size = number(fields.at("group_size"));
  d.format.has_zero = fields.at("zero").get<bool>();
  d.format.has_col_scale = fields.at("t").get<bool>();
  const nlohmann::json& shape = fields.at("shape");
  if (shape.size() != 2) return make_error(errc::malformed, "shape is ", shape.dump(), ", expected two numbers");
  d.format.rows = number(shape.at(0));
  d.format.cols = number(shape.at(1));
  const auto grid = fields.at("grid").get<std::string>();
  const auto layout = fields.at("layout").get<std::string>();
  if (grid != uniform_grid || layout != canonical_layout)
    return make_error(errc::unsupported, "grid ", in_quotes(grid), " in layout ", in_quotes(layout), ", expected ",
                      in_quotes(uniform_grid), " and ", in_quotes(canonical_layout));
  const auto type = fields.at("dtype").get<std::string>();
  const std::optional<dtype> original = parse_dtype(type);
  if (!original || !info(*original).is_float)
    return make_error(errc::malformed, "dtype is ", in_quotes(type), ", expected that of a floating type");
  d.original = *original;
  return d;
}

[[nodiscard]] inline result<description> parse_description(const std::string& text) {
  if (text.size() > max_description_bytes)
    return make_error(errc::malformed, "the description has ", text.size(), " bytes, expected at most ",
                      max_description_bytes);
  try {
    result<description> d = parse_fields(text);
    if (!d) return d;
    if (result<void> ok = check_format(d->format); !ok) return ok.error();
    return d;
  } catch (const nlohmann::json::exception& failure) {
    return make_error(errc::malformed, "the description ", in_quotes(text), " cannot be read: ", failure.what());
  }
}

/// The same bytes on a 64-byte boundary of at least `alignment`: copied only if a strange writer did not align them.
[[nodiscard]] inline shared_bytes aligned(shared_bytes bytes, std::size_t alignment) {
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignment == 0) return bytes;
  aligned_buffer<byte> copy{bytes.size(), aligned_buffer<byte>::uninitialized};
  std::memcpy(copy.data(), bytes.data(), bytes.size());
  return shared_bytes{std::move(copy)};
}

} // namespace detail

/// Marks a model as a native checkpoint; to be called before its first tensor.
[[nodiscard]] inline result<void> begin_checkpoint(model_writer& to) {
  return to.set_metadata(std::string{checkpoint_version_key}, std::string{checkpoint_version});
}

/// Writes a packed matrix under the name of the tensor that it stands for; see io/README.md for the tensors it makes.
/// @param original  element type that the weight had
/// @errors          those of model_writer
[[nodiscard]] inline result<void> write_packed(model_writer& to, std::string_view name, const packed_matrix& p,
                                               dtype original) {
  const matrix_format& f = p.format;
  const dtype aux = storage(f.aux);
  if (auto done = to.keep_together(p.size_bytes()); !done) return done;
  const auto add = [&](std::string_view suffix, dtype type, const std::vector<std::size_t>& shape,
                       const shared_bytes& data) {
    return to.add(detail::joined(name, suffix), type, shape, data.span());
  };
  if (auto done = add(detail::codes_suffix, dtype::u8, {f.rows, p.codes.size() / f.rows}, p.codes); !done) return done;
  if (auto done = add(detail::scale_suffix, aux, {f.rows, f.groups()}, p.scale); !done) return done;
  if (f.has_zero)
    if (auto done = add(detail::zero_suffix, aux, {f.rows, f.groups()}, p.zero); !done) return done;
  if (f.has_col_scale)
    if (auto done = add(detail::col_scale_suffix, f.col_scale_type, {f.cols}, p.col_scale); !done) return done;
  return to.set_shard_metadata(detail::joined(checkpoint_tensor_prefix, name), detail::describe(p, original));
}

/// A model, quantized or not, as its user sees it. Nothing is read before it is asked for; packed matrices lie in the
/// mapped files, which they keep alive.
class checkpoint {
public:
  /// Opens a file or directory as model_reader does and checks every description in it.
  /// @errors  those of model_reader::open; errc::unsupported (another version, grid or layout), errc::malformed (a
  ///          description that cannot be read, or whose tensors are missing or have other types or shapes)
  [[nodiscard]] static result<checkpoint> open(const std::filesystem::path& path,
                                               const safetensors_limits& limits = {}) {
    auto model = model_reader::open(path, limits);
    if (!model) return std::move(model).error();
    checkpoint opened{*std::move(model)};
    if (auto done = opened.index(); !done) return std::move(done).error().in(path.string());
    return opened;
  }

  /// All tensors in the order of the files; a quantized one stands where its codes are.
  [[nodiscard]] std::span<const checkpoint_tensor> tensors() const { return tensors_; }
  [[nodiscard]] const model_reader& model() const { return model_; }
  /// True if the files say that they are a native checkpoint.
  [[nodiscard]] bool is_quantized() const { return !packed_.empty(); }

  /// The tensor of that name, or nullptr; valid as long as this object stays where it is.
  [[nodiscard]] const checkpoint_tensor* find(std::string_view name) const {
    const auto at = by_name_.find(name);
    return at == by_name_.end() ? nullptr : &tensors_[at->second];
  }
  /// Bytes of a tensor that is not quantized. @pre tensor is one of tensors() and not quantized
  [[nodiscard]] shared_bytes data(const checkpoint_tensor& tensor) const {
    return model_.data(*model_.find(tensor.name));
  }
  /// A quantized tensor, in place. @pre tensor is one of tensors() and quantized
  [[nodiscard]] const packed_matrix& packed(const checkpoint_tensor& tensor) const {
    return packed_.find(tensor.name)->second;
  }
  /// Hints that a tensor's bytes are no longer needed; they are read again if they are.
  void release(const checkpoint_tensor& tensor) const {
    if (!tensor.quantized) return model_.release(*model_.find(tensor.name));
    for (const std::string_view suffix : parts)
      if (const model_tensor* part = model_.find(detail::joined(tensor.name, suffix)); part != nullptr)
        model_.release(*part);
  }

private:
  static constexpr std::array<std::string_view, 4> parts{detail::codes_suffix, detail::scale_suffix,
                                                         detail::zero_suffix, detail::col_scale_suffix};

  explicit checkpoint(model_reader model) : model_{std::move(model)} {}

  [[nodiscard]] result<void> index() {
    const auto version = model_.metadata().find(std::string{checkpoint_version_key});
    if (version != model_.metadata().end() && version->second != checkpoint_version)
      return make_error(errc::unsupported, "the checkpoint has version ", in_quotes(version->second), ", expected ",
                        in_quotes(checkpoint_version));
    std::map<std::string, std::string> stands_for; // codes tensor -> name; other parts -> ""
    std::map<std::string, dtype> original;
    for (const auto& [key, text] : model_.metadata()) {
      if (version == model_.metadata().end() || !key.starts_with(checkpoint_tensor_prefix)) continue;
      const std::string name = key.substr(checkpoint_tensor_prefix.size());
      const auto loaded = load(name, text, original);
      if (!loaded) return error{loaded.error()}.in("tensor " + in_quotes(name));
      const matrix_format& f = packed_.find(name)->second.format;
      stands_for.emplace(detail::joined(name, detail::scale_suffix), "");
      if (f.has_zero) stands_for.emplace(detail::joined(name, detail::zero_suffix), "");
      if (f.has_col_scale) stands_for.emplace(detail::joined(name, detail::col_scale_suffix), "");
      stands_for[detail::joined(name, detail::codes_suffix)] = name;
    }
    for (const model_tensor& tensor : model_.tensors()) {
      const auto part = stands_for.find(tensor.info.name);
      if (part == stands_for.end()) {
        tensors_.push_back({tensor.info.name, tensor.info.type, tensor.info.shape, false});
      } else if (!part->second.empty()) {
        const matrix_format& f = packed_.find(part->second)->second.format;
        tensors_.push_back({part->second, original[part->second], {f.rows, f.cols}, true});
      }
    }
    for (std::size_t i = 0; i < tensors_.size(); ++i)
      if (!by_name_.emplace(tensors_[i].name, i).second)
        return make_error(errc::malformed, "tensor ", in_quotes(tensors_[i].name), " is there plain and quantized");
    return {};
  }

  /// Finds and checks the parts of one quantized tensor.
  [[nodiscard]] result<void> load(const std::string& name, const std::string& text,
                                  std::map<std::string, dtype>& original) {
    auto d = detail::parse_description(text);
    if (!d) return std::move(d).error();
    packed_matrix p{d->format, code_layout::canonical, std::move(d->method), {}, {}, {}, {}};
    matrix_format& f = p.format;
    const std::size_t row_bytes = with_layout(f.bits, [&](auto layout) { return layout.row_bytes(f.cols); });
    if (auto done = part(name, detail::codes_suffix, {dtype::u8}, {f.rows, row_bytes}, p.codes); !done)
      return std::move(done).error();
    auto aux = part(name, detail::scale_suffix, aux_types, {f.rows, f.groups()}, p.scale);
    if (!aux) return std::move(aux).error();
    f.aux = *aux == dtype::f16 ? aux_dtype::f16 : *aux == dtype::bf16 ? aux_dtype::bf16 : aux_dtype::f32;
    if (f.has_zero)
      if (auto done = part(name, detail::zero_suffix, {*aux}, {f.rows, f.groups()}, p.zero); !done)
        return std::move(done).error();
    f.col_scale_type = storage(f.aux);
    if (f.has_col_scale) {
      auto type = part(name, detail::col_scale_suffix, aux_types, {f.cols}, p.col_scale);
      if (!type) return std::move(type).error();
      f.col_scale_type = *type;
    }
    if (auto done = check_packed(p); !done) return done;
    original.emplace(name, d->original);
    packed_.emplace(name, std::move(p));
    return {};
  }

  /// One part's bytes; returns its element type.
  [[nodiscard]] result<dtype> part(const std::string& name, std::string_view suffix, const std::vector<dtype>& types,
                                   const std::vector<std::size_t>& shape, shared_bytes& bytes) const {
    const std::string part_name = detail::joined(name, suffix);
    const model_tensor* tensor = model_.find(part_name);
    if (tensor == nullptr) return make_error(errc::malformed, "its part ", in_quotes(part_name), " is missing");
    if (tensor->info.shape != shape)
      return make_error(errc::malformed, "its part ", in_quotes(part_name), " has shape ",
                        to_string(tensor->info.shape), ", expected ", to_string(shape));
    if (std::find(types.begin(), types.end(), tensor->info.type) == types.end())
      return make_error(errc::malformed, "its part ", in_quotes(part_name), " has type ", to_string(tensor->info.type),
                        ", expected ", to_string(types.front()), types.size() > 1 ? ", BF16 or F32" : "");
    bytes = detail::aligned(model_.data(*tensor), size_bytes(tensor->info.type));
    return tensor->info.type;
  }

  static inline const std::vector<dtype> aux_types{dtype::f16, dtype::bf16, dtype::f32};

  model_reader model_;
  std::vector<checkpoint_tensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
  std::map<std::string, packed_matrix, std::less<>> packed_;
};

} // namespace sinq::io
