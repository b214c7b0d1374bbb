#pragma once

#include "../pack/aux_codes.hpp"
#include "model_writer.hpp"
#include "official_checkpoint.hpp"

#include <map>
#include <set>

namespace sinq::io {

/// Whether the official format, as the package and transformers read it, can hold a weight that is held so here:
/// 2 to 6 bits, uniform grid, groups that divide the columns, f16 scales, and a t for all rows.
/// @errors  errc::unsupported: names the property, its value and what was expected; put the tensor before it
[[nodiscard]] inline result<void> check_official(std::string_view tensor, const matrix_format& f) {
  const auto refuse = [](const auto&... pieces) {
    return make_error(errc::unsupported, "the official format cannot hold it: ", pieces...);
  };
  if (!tensor.ends_with(official_weight_suffix) || tensor.size() == official_weight_suffix.size())
    return refuse("a quantized tensor is named LAYER", official_weight_suffix);
  std::string_view last = tensor.substr(0, tensor.size() - official_weight_suffix.size());
  last.remove_prefix(last.rfind('.') + 1);
  if (last.find("embed") != last.npos || last == "wte" || last == "wpe")
    return refuse("it reads embeddings as they are");
  if (f.bits == 8 || !is_supported_bits(f.bits)) return refuse("bits is ", f.bits, ", expected 2, 3, 4, 5 or 6");
  if (f.group_size == 0 || f.cols % f.group_size != 0)
    return refuse("group_size is ", f.group_size, ", expected one that divides the ", f.cols, " columns");
  if (f.grid != grid::uniform) return refuse("its levels are not evenly spaced");
  if (f.tile_rows != 0) return refuse("tiles of ", f.tile_rows, " rows, expected one t for all rows");
  if (f.rotation != 0) return refuse("it is rotated in blocks of ", f.rotation);
  if (f.scale_bits != 0 || f.zero_bits != 0) return refuse("scales or zero points are quantized");
  if (f.aux != aux_dtype::f16) return refuse("scales are ", to_string(storage(f.aux)), ", expected F16");
  return {};
}

namespace detail {

/// Values as f16, which must hold each of them exactly.
[[nodiscard]] inline result<std::vector<byte>> exact_f16(std::span<const float> values, std::string_view what,
                                                         std::size_t per_row) {
  std::vector<byte> bytes(values.size() * size_bytes(dtype::f16));
  store_floats(values, dtype::f16, bytes.data());
  std::vector<float> back(values.size());
  load_floats(bytes.data(), dtype::f16, back);
  for (std::size_t n = 0; n < values.size(); ++n)
    if (!is_finite(values[n]) || back[n] != values[n])
      return make_error(errc::not_representable, "the official format cannot hold it: ", what, " ", n % per_row,
                        per_row == values.size() ? "" : " of row " + std::to_string(n / per_row), " is ", values[n],
                        ", which is no F16 number");
  return bytes;
}

} // namespace detail

/// Puts a model into the official format, tensor by tensor, into a directory that a model_writer makes:
///   LAYER.W_q            words of codes, see official_packing
///   LAYER.meta.scale     F16 [N G, 1]
///   LAYER.meta.zero      F16 [N G, 1], fractional or not
///   LAYER.meta.scale2    F16 [1, K], t; ones where there is none
/// for each quantized LAYER.weight, every other tensor as it is, and what the official readers want beside them:
/// buffers of the rotary embeddings, config.json with a quantization_config, the index and its `.meta.json`. The
/// directory's writer must have been made with always_index. Order: one add or note for each tensor, then finish.
class official_writer {
public:
  /// Reads the model's configuration.
  /// @errors  errc::unsupported (not a directory with a config.json; rotary embeddings, see rotary_frequencies), and
  ///          those of load_json_object
  [[nodiscard]] static result<official_writer> prepare(const model_reader& input) {
    const std::filesystem::path path = input.directory() / config_name;
    std::error_code ignored;
    if (input.directory().empty() || !std::filesystem::exists(path, ignored))
      return make_error(errc::unsupported,
                        (input.directory().empty() ? input.files()[0].path() : input.directory()).string(),
                        ": the official format needs a model directory with a ", config_name);
    auto config = load_json_object(path);
    if (!config) return std::move(config).error();
    auto frequencies = rotary_frequencies(*config);
    if (!frequencies) return std::move(frequencies).error().in(path.string());
    return official_writer{*std::move(config), *std::move(frequencies)};
  }

  /// Writes a quantized weight.
  /// @param name      LAYER.weight
  /// @param original  element type that the weight had
  /// @errors          those of check_official and model_writer; errc::not_representable (a scale, zero point or t that
  ///                  f16 cannot hold exactly: names the value and its place)
  [[nodiscard]] result<void> add(model_writer& to, std::string_view name, const packed_matrix& p, dtype original) {
    const matrix_format& f = p.format;
    if (auto possible = check_official(name, f); !possible) return possible;
    const std::string layer{name.substr(0, name.size() - official_weight_suffix.size())};
    const std::size_t groups = f.rows * f.groups();
    std::vector<float> scale(groups), zero(groups), t(f.cols, 1.0f);
    for (std::size_t i = 0; i < f.rows; ++i)
      load_auxiliaries(p, i, std::span{scale}.subspan(i * f.groups(), f.groups()),
                       std::span{zero}.subspan(i * f.groups(), f.groups()));
    if (f.has_col_scale) load_floats(p.col_scale.data(), f.col_scale_type, t);
    const auto scale_bytes = detail::exact_f16(scale, "the scale of group", f.groups());
    if (!scale_bytes) return scale_bytes.error();
    const auto zero_bytes = detail::exact_f16(zero, "the zero point of group", f.groups());
    if (!zero_bytes) return zero_bytes.error();
    const auto t_bytes = detail::exact_f16(t, "t of column", f.cols);
    if (!t_bytes) return t_bytes.error();

    const official_packing& packing = packing_of(f.bits);
    const std::vector<byte> words = pack_official(packing, codes_of(p), f.group_size);
    if (auto done = to.keep_together(words.size() + 4 * groups + 2 * f.cols); !done) return done;
    const auto put = [&](std::string_view suffix, dtype type, std::vector<std::size_t> shape,
                         std::span<const byte> bytes) {
      return to.add(layer + std::string{suffix}, type, shape, bytes, size_bytes(type));
    };
    const std::size_t word_rows = packing.word_rows(groups);
    if (auto done = put(official_codes_suffix, packing.word, {word_rows, f.group_size}, words); !done) return done;
    if (auto done = put(".meta.scale", dtype::f16, {groups, 1}, *scale_bytes); !done) return done;
    if (auto done = put(".meta.zero", dtype::f16, {groups, 1}, *zero_bytes); !done) return done;
    if (auto done = put(".meta.scale2", dtype::f16, {1, f.cols}, *t_bytes); !done) return done;
    layers_[layer] = {{"meta", official_layer_meta(f, original)}};
    ++widths_[{f.bits, f.group_size}];
    return {};
  }

  /// Takes note of a tensor that the caller writes as it is.
  void note(const tensor_info& plain) {
    const std::string_view name = plain.name;
    if (is_official_buffer(name)) buffers_.emplace(name);
    if (const std::size_t at = name.rfind("embed_tokens.weight"); at != name.npos) core_ = name.substr(0, at);
    if (plain.shape.size() != 2 || !name.ends_with(official_weight_suffix) || name.find("embed") != name.npos) return;
    not_converted_.emplace(name.substr(0, name.size() - official_weight_suffix.size()));
  }

  /// Writes everything that is no tensor of the model. The caller copies the other side files.
  /// @errors  those of model_writer
  [[nodiscard]] result<void> finish(model_writer& to) {
    if (auto done = write_buffers(to); !done) return done;
    official_quantization q;
    std::size_t most = 0;
    for (const auto& [width, count] : widths_)
      if (count > most) {
        most = count;
        q.bits = width.first;
        q.group_size = width.second;
      }
    not_converted_.emplace("lm_head");
    q.not_converted.assign(not_converted_.begin(), not_converted_.end());
    add_quantization(config_, q);
    if (auto done = write_json(to, config_name, config_); !done) return done;
    return write_json(to, model_meta_name, layers_);
  }

private:
  official_writer(nlohmann::json config, std::vector<float> frequencies)
      : config_(std::move(config)), frequencies_{std::move(frequencies)} {}

  /// Codes [N x K], one byte each; since groups divide the columns they are the [R x g] of the packing too.
  [[nodiscard]] static std::vector<std::uint8_t> codes_of(const packed_matrix& p) {
    std::vector<std::uint8_t> codes(p.format.rows * p.format.cols);
    with_layout(p.format.bits, [&](auto layout) {
      for (std::size_t i = 0; i < p.format.rows; ++i)
        layout.unpack_row(p.code_row(i), std::span{codes}.subspan(i * p.format.cols, p.format.cols));
    });
    return codes;
  }

  [[nodiscard]] result<void> write_buffers(model_writer& to) const {
    if (frequencies_.empty()) return {};
    for (const char* const buffer : {"rotary_emb.inv_freq", "rotary_emb.original_inv_freq"}) {
      const std::string name = core_ + buffer;
      if (buffers_.contains(name)) continue;
      auto done = to.add(name, dtype::f32, std::vector{frequencies_.size()}, std::as_bytes(std::span{frequencies_}),
                         sizeof(float));
      if (!done) return done;
    }
    return {};
  }

  [[nodiscard]] static result<void> write_json(model_writer& to, std::string_view name,
                                               const nlohmann::json& document) {
    const std::string text = json_text(document);
    return to.write_side_file(std::string{name}, std::as_bytes(std::span{text}));
  }

  nlohmann::json config_;
  std::vector<float> frequencies_;
  std::string core_ = "model."; ///< what the names of the decoder's tensors begin with
  nlohmann::json layers_ = nlohmann::json::object();
  std::map<std::pair<int, std::size_t>, std::size_t> widths_; ///< bits and group size -> layers
  std::set<std::string> not_converted_;
  std::set<std::string, std::less<>> buffers_; ///< that the model itself has
};

} // namespace sinq::io
