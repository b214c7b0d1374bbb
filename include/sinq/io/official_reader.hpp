#pragma once

#include "../core/convert.hpp"
#include "model_reader.hpp"
#include "official_meta.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

namespace sinq::io {

namespace detail {

/// A refusal that names the tensor and its file.
template <class... Pieces>
[[nodiscard]] error wrong_tensor(const model_reader& model, const model_tensor& tensor, const Pieces&... pieces) {
  return make_error(errc::malformed, pieces...)
      .in("tensor " + in_quotes(tensor.info.name))
      .in(model.files()[tensor.file].path().string());
}

/// The tensor of that name, which must be there and be of one of the types.
[[nodiscard]] inline result<const model_tensor*> need_tensor(const model_reader& model, const std::string& name,
                                                             std::span<const dtype> types) {
  const model_tensor* const found = model.find(name);
  if (found == nullptr)
    return make_error(errc::malformed, model.directory().string(), ": tensor ", in_quotes(name), " is missing");
  if (std::find(types.begin(), types.end(), found->info.type) != types.end()) return found;
  std::string names;
  for (const dtype type : types) names.append(names.empty() ? "" : " or ").append(to_string(type));
  return wrong_tensor(model, *found, "has type ", to_string(found->info.type), ", expected ", names);
}

inline constexpr std::array aux_types{dtype::f16, dtype::bf16, dtype::f32};

/// What is known of a layer's scales or zero points before they are read.
struct official_aux {
  dtype type = dtype::f32;
  std::vector<std::size_t> shape; ///< before they were quantized
};

/// Checks the tensors of quantized scales or zero points, x [A, C] of U8 with s and m [1, C]:
/// value[n] = x[n] s[n % C] + m[n % C], with n counting x in row-major order.
[[nodiscard]] inline result<official_aux> check_quantized_aux(const model_reader& model, const official_layer& layer,
                                                              const std::string& name,
                                                              const std::vector<std::size_t>& shape) {
  const auto x = need_tensor(model, name + ".x", std::array{dtype::u8});
  if (!x) return x.error();
  const std::vector<std::size_t>& codes = (*x)->info.shape;
  if (codes.size() != 2) return wrong_tensor(model, **x, "has shape ", to_string(codes), ", expected two dimensions");
  official_aux aux{dtype::f32, shape};
  for (const char* part : {".s", ".m"}) {
    const auto found = need_tensor(model, name + part, aux_types);
    if (!found) return found.error();
    if (const std::vector<std::size_t> expected{1, codes[1]}; (*found)->info.shape != expected)
      return wrong_tensor(model, **found, "has shape ", to_string((*found)->info.shape), ", expected ",
                          to_string(expected));
    if (part[1] == 'm' && (*found)->info.type != aux.type)
      return wrong_tensor(model, **found, "has type ", to_string((*found)->info.type), ", expected ",
                          to_string(aux.type), " as its .s");
    aux.type = (*found)->info.type;
  }
  if (tensor_bytes(dtype::u8, shape) != (*x)->info.elements())
    return make_error(errc::malformed, (model.directory() / model_meta_name).string(), ": layer ",
                      in_quotes(layer.name), ": the shape of ", in_quotes(name), " is ", to_string(shape),
                      ", expected ", (*x)->info.elements(), " elements as its .x has");
  return aux;
}

/// Checks a layer's scales ("scale") or zero points ("zero").
[[nodiscard]] inline result<official_aux> check_aux(const model_reader& model, const official_layer& layer,
                                                    std::string_view part, const std::vector<std::size_t>& shape) {
  const std::string name = layer.tensor(official_meta_infix).append(part);
  if (model.find(name) == nullptr && model.find(name + ".x") != nullptr)
    return check_quantized_aux(model, layer, name, shape);
  const auto found = need_tensor(model, name, aux_types);
  if (!found) return found.error();
  return official_aux{(*found)->info.type, (*found)->info.shape};
}

/// Checks the words of codes, whose columns are the group size.
[[nodiscard]] inline result<void> check_codes(const model_reader& model, official_layer& layer) {
  const official_packing& packing = packing_of(layer.format.bits);
  const auto found = need_tensor(model, layer.tensor(official_codes_suffix), std::array{packing.word});
  if (!found) return found.error();
  const std::vector<std::size_t>& shape = (*found)->info.shape;
  const std::size_t cols = shape.size() == 2 ? shape[1] : 0;
  const std::size_t stated = layer.stated_group_size == 0 ? layer.format.cols : layer.stated_group_size;
  // the package halves a group size until it divides the columns
  if (cols == 0 || layer.format.cols % cols != 0 || stated % cols != 0)
    return wrong_tensor(model, **found, "has shape ", to_string(shape), ", expected columns that divide the ",
                        layer.format.cols, " of the weight and its group size of ", stated);
  layer.format.group_size = cols;
  if (const std::vector<std::size_t> expected{packing.word_rows(layer.code_rows()), cols}; shape != expected)
    return wrong_tensor(model, **found, "has shape ", to_string(shape), ", expected ", to_string(expected), " for ",
                        layer.format.bits, " bits of ", layer.format.rows, " x ", layer.format.cols);
  return {};
}

/// Checks scales and zero points, one for each group, and tells tiling from their shape: [R, 1], or [tiles, B, 1].
[[nodiscard]] inline result<void> check_auxiliaries(const model_reader& model, official_layer& layer) {
  matrix_format& f = layer.format;
  const auto scale = check_aux(model, layer, "scale", layer.scale_shape);
  if (!scale) return scale.error();
  const auto zero = check_aux(model, layer, "zero", layer.zero_shape);
  if (!zero) return zero.error();
  const std::size_t groups = layer.code_rows();
  const auto wrong = [&](std::string_view part, const std::vector<std::size_t>& shape) {
    return make_error(errc::malformed, model.directory().string(), ": layer ", in_quotes(layer.name), ": its ", part,
                      " has shape ", to_string(shape), ", expected ", to_string(std::vector<std::size_t>{groups, 1}),
                      ", or square tiles, for ", f.rows, " x ", f.cols, " in groups of ", f.group_size);
  };
  const auto elements = [](const official_aux& aux) { return tensor_bytes(dtype::u8, aux.shape).value_or(0); };
  const std::size_t rank = scale->shape.size();
  if (elements(*scale) != groups || (rank != 2 && rank != 3) || scale->shape.back() != 1)
    return wrong("scale", scale->shape);
  if (rank == 3 && (scale->shape[1] != f.group_size || f.rows % f.group_size != 0)) return wrong("scale", scale->shape);
  if (elements(*zero) != 1 && elements(*zero) != groups) return wrong("zero", zero->shape);
  if (rank == 3) f.tile_rows = f.group_size;
  f.has_zero = true;
  const dtype type = scale->type == zero->type ? scale->type : dtype::f32;
  f.aux = type == dtype::f16 ? aux_dtype::f16 : type == dtype::bf16 ? aux_dtype::bf16 : aux_dtype::f32;
  return {};
}

/// Checks t, if there is one.
[[nodiscard]] inline result<void> check_col_scale(const model_reader& model, official_layer& layer) {
  const std::string name = layer.tensor(official_meta_infix).append("scale2");
  layer.format.col_scale_type = storage(layer.format.aux);
  if (model.find(name) == nullptr) return {};
  const auto found = need_tensor(model, name, aux_types);
  if (!found) return found.error();
  if ((*found)->info.elements() != layer.format.row_tiles() * layer.format.cols)
    return wrong_tensor(model, **found, "has shape ", to_string((*found)->info.shape), ", expected ",
                        layer.format.row_tiles() * layer.format.cols, " elements");
  layer.format.has_col_scale = true;
  layer.format.col_scale_type = (*found)->info.type;
  return {};
}

[[nodiscard]] inline std::vector<float> load_all(const model_reader& model, const std::string& name) {
  const model_tensor& tensor = *model.find(name);
  std::vector<float> values(tensor.info.elements());
  load_floats(model.data(tensor).data(), tensor.info.type, values);
  return values;
}

/// Scales or zero points in the order in which they are stored, decoded as the package does it, in their own type.
[[nodiscard]] inline std::vector<float> load_aux(const model_reader& model, const official_layer& layer,
                                                 std::string_view part) {
  const std::string name = layer.tensor(official_meta_infix).append(part);
  if (model.find(name) != nullptr) return load_all(model, name);
  const std::vector<float> step = load_all(model, name + ".s");
  const std::vector<float> least = load_all(model, name + ".m");
  const model_tensor& x = *model.find(name + ".x");
  const dtype type = model.find(name + ".s")->info.type;
  const shared_bytes codes = model.data(x);
  std::vector<float> values(codes.size());
  for (std::size_t n = 0; n < values.size(); ++n) {
    const std::size_t c = n % step.size();
    const float above = sinq::detail::as_stored(static_cast<float>(codes.span()[n]) * step[c], type);
    values[n] = sinq::detail::as_stored(above + least[c], type); // each operation in the type of the steps
  }
  return values;
}

/// Values [N x G] of the format's storage type from those in stored order; one value stands for all.
[[nodiscard]] inline shared_bytes arranged(const matrix_format& f, const std::vector<float>& values) {
  const std::size_t groups = f.groups();
  std::vector<float> ordered(f.rows * groups);
  for (std::size_t i = 0; i < f.rows; ++i)
    for (std::size_t g = 0; g < groups; ++g) {
      const std::size_t tiled = f.tile_rows == 0 ? 0 : (i / f.tile_rows * groups + g) * f.tile_rows + i % f.tile_rows;
      const std::size_t from = f.tile_rows == 0 ? i * groups + g : tiled;
      ordered[i * groups + g] = values[values.size() == 1 ? 0 : from];
    }
  const dtype type = storage(f.aux);
  aligned_buffer<byte> bytes{ordered.size() * size_bytes(type), aligned_buffer<byte>::uninitialized};
  store_floats(ordered, type, bytes.data());
  return shared_bytes{std::move(bytes)};
}

} // namespace detail

/// Finds the tensors of a layer and checks that they are what was told; completes its format.
/// @errors  errc::malformed (a tensor that is missing, or of another type or shape: names file and tensor)
[[nodiscard]] inline result<void> check_official_layer(const model_reader& model, official_layer& layer) {
  if (auto ok = detail::check_codes(model, layer); !ok) return ok;
  if (auto ok = detail::check_auxiliaries(model, layer); !ok) return ok;
  return detail::check_col_scale(model, layer);
}

/// A layer's weight as it is held here: codes in the canonical layout; scales and zero points in f16 or bf16 where both
/// have that type, in f32 else; quantized ones as the values that they stand for. Nothing is rounded: W is, bit for
/// bit, the package's own in f32, but for nf4 and nf3, whose levels the package rounds to the type of the scales.
/// @pre check_official_layer(model, layer)
[[nodiscard]] inline packed_matrix unpack_official_layer(const model_reader& model, const official_layer& layer) {
  const matrix_format& f = layer.format;
  packed_matrix p;
  p.format = f;
  p.method = layer.method;
  p.scale = detail::arranged(f, detail::load_aux(model, layer, "scale"));
  p.zero = detail::arranged(f, detail::load_aux(model, layer, "zero"));
  const std::size_t row_bytes = stream_bytes(f.bits, f.cols);
  aligned_buffer<byte> codes{f.rows * row_bytes, aligned_buffer<byte>::uninitialized};
  const shared_bytes words = model.data(*model.find(layer.tensor(official_codes_suffix)));
  std::vector<std::uint8_t> row(f.cols);
  for (std::size_t i = 0; i < f.rows; ++i) {
    for (std::size_t g = 0; g < f.groups(); ++g)
      unpack_official_row(packing_of(f.bits), words.span(), layer.code_rows(), i * f.groups() + g,
                          std::span{row}.subspan(g * f.group_size, f.group_size));
    with_layout(f.bits, [&](auto layout) { layout.pack_row(row, codes.span().subspan(i * row_bytes, row_bytes)); });
  }
  p.codes = shared_bytes{std::move(codes)};
  if (f.has_col_scale) {
    const shared_bytes t = model.data(*model.find(layer.tensor(official_meta_infix).append("scale2")));
    aligned_buffer<byte> copy{t.size(), aligned_buffer<byte>::uninitialized};
    std::copy(t.span().begin(), t.span().end(), copy.begin());
    p.col_scale = shared_bytes{std::move(copy)};
  }
  SINQ_ASSERT(check_packed(p).has_value());
  return p;
}

} // namespace sinq::io
