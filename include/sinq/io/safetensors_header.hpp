#pragma once

#include "file_system.hpp"
#include "tensor_info.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sinq::io {

/// How much of a header is read before it is refused; the first is the limit of the official reader.
struct safetensors_limits {
  std::size_t max_header_bytes = 100'000'000;
  std::size_t max_tensors = 1'000'000; ///< and as many entries of metadata
  std::size_t max_rank = 32;
};

/// What the header of a file says, checked: tensors in ascending order of offset, without overlap or hole.
struct safetensors_header {
  std::vector<tensor_info> tensors;
  metadata_map metadata;
  std::size_t data_begin = 0; ///< first byte of the data section, counted from the start of the file
};

namespace detail {

/// Builds the header while the JSON is read: the grammar of the format is three levels deep, so whatever is deeper, or
/// of another kind than expected, ends the parse at once, and no document tree is ever built.
class header_builder {
public:
  header_builder(const safetensors_limits& limits, safetensors_header& header) : limits_{limits}, header_{header} {}

  bool start_object(std::size_t) {
    if (level_ == level::outside) return enter(level::top);
    if (level_ != level::top) return unexpected("an object");
    if (key_ == metadata_key) {
      if (std::exchange(has_metadata_, true)) return fail(errc::malformed, "has two ", metadata_key, " objects");
      return enter(level::metadata);
    }
    if (key_.empty()) return fail(errc::malformed, "has a tensor with an empty name");
    if (header_.tensors.size() >= limits_.max_tensors)
      return fail(errc::unsupported, "has more than the ", limits_.max_tensors, " tensors allowed");
    header_.tensors.push_back({.name = key_, .type = dtype::f32, .shape = {}, .begin = 0, .end = 0});
    has_type_ = has_shape_ = has_offsets_ = false;
    return enter(level::tensor);
  }

  bool end_object() {
    if (level_ != level::tensor) return enter(level_ == level::top ? level::outside : level::top);
    const std::string_view missing = !has_type_ ? "dtype" : !has_shape_ ? "shape" : !has_offsets_ ? "data_offsets" : "";
    if (!missing.empty()) return fail(errc::malformed, subject(), " has no \"", missing, "\"");
    return enter(level::top);
  }

  bool key(std::string& name) {
    key_.swap(name);
    if (level_ != level::tensor) return true;
    bool* seen = key_ == "dtype"          ? &has_type_
                 : key_ == "shape"        ? &has_shape_
                 : key_ == "data_offsets" ? &has_offsets_
                                          : nullptr;
    if (seen == nullptr) return fail(errc::malformed, subject(), " has an unknown key ", in_quotes(key_));
    if (std::exchange(*seen, true)) return fail(errc::malformed, subject(), " has two keys ", in_quotes(key_));
    return true;
  }

  bool string(std::string& text) {
    if (level_ == level::metadata) return add_metadata(text);
    if (level_ != level::tensor || key_ != "dtype") return unexpected("a string");
    const std::optional<dtype> type = parse_dtype(text);
    if (!type)
      return fail(errc::unsupported, subject(), " has dtype ", in_quotes(text), ", which is not one known here");
    header_.tensors.back().type = *type;
    return true;
  }

  bool start_array(std::size_t) {
    if (level_ != level::tensor || key_ == "dtype") return unexpected("an array");
    offsets_ = 0;
    return enter(key_ == "shape" ? level::shape : level::offsets);
  }

  bool end_array() {
    if (level_ == level::offsets && offsets_ != 2)
      return fail(errc::malformed, subject(), " has ", offsets_, " data_offsets, expected 2");
    return enter(level::tensor);
  }

  bool number_unsigned(std::uint64_t value) {
    if (level_ == level::shape) {
      std::vector<std::size_t>& shape = header_.tensors.back().shape;
      if (shape.size() >= limits_.max_rank)
        return fail(errc::unsupported, subject(), " has more than the ", limits_.max_rank, " dimensions allowed");
      shape.push_back(value);
      return true;
    }
    if (level_ != level::offsets) return unexpected("a number");
    if (offsets_ >= 2) return fail(errc::malformed, subject(), " has more than 2 data_offsets");
    (offsets_++ == 0 ? header_.tensors.back().begin : header_.tensors.back().end) = value;
    return true;
  }

  bool null() { return unexpected("null"); }
  bool boolean(bool) { return unexpected("a boolean"); }
  bool number_integer(std::int64_t value) { return unexpected("the negative number ", value); }
  bool number_float(double, const std::string& text) { return unexpected("the number ", in_quotes(text)); }
  bool binary(std::vector<std::uint8_t>&) { return unexpected("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& reason) {
    return fail(errc::malformed, "is not valid JSON at byte ", position, ": ", in_quotes(reason.what()));
  }

  /// Why the parse ended early; its sentence goes on from "the header ".
  [[nodiscard]] error& failure() { return failure_; }

private:
  enum class level { outside, top, metadata, tensor, shape, offsets };

  bool enter(level next) {
    level_ = next;
    return true;
  }

  bool add_metadata(std::string& text) {
    if (header_.metadata.size() >= limits_.max_tensors)
      return fail(errc::unsupported, "has more than the ", limits_.max_tensors, " entries of metadata allowed");
    if (!header_.metadata.try_emplace(key_, std::move(text)).second)
      return fail(errc::malformed, "has two entries of metadata named ", in_quotes(key_));
    return true;
  }

  /// Where the parse stands, for messages.
  [[nodiscard]] std::string subject() const {
    switch (level_) {
    case level::outside: return "at its top";
    case level::top: return "entry " + in_quotes(key_);
    case level::metadata: return "metadata entry " + in_quotes(key_);
    case level::tensor:
    case level::shape:
    case level::offsets: break;
    }
    return "tensor " + in_quotes(header_.tensors.back().name);
  }

  [[nodiscard]] std::string_view expected() const {
    switch (level_) {
    case level::outside:
    case level::top: return "an object";
    case level::metadata: return "a string";
    case level::tensor: return key_ == "dtype" ? "a string as its dtype" : "an array of non-negative integers";
    case level::shape: return "a non-negative integer in its shape";
    case level::offsets: break;
    }
    return "a non-negative integer in its data_offsets";
  }

  template <class... Pieces>
  bool unexpected(const Pieces&... found) {
    return fail(errc::malformed, subject(), " has ", found..., ", expected ", expected());
  }

  template <class... Pieces>
  bool fail(errc code, const Pieces&... pieces) {
    failure_ = make_error(code, pieces...);
    return false;
  }

  const safetensors_limits& limits_;
  safetensors_header& header_;
  error failure_;
  level level_ = level::outside;
  std::string key_;
  bool has_metadata_ = false, has_type_ = false, has_shape_ = false, has_offsets_ = false;
  int offsets_ = 0;
};

/// The JSON text at the start of a file, within its bounds.
[[nodiscard]] inline result<std::string_view> header_text(std::span<const byte> file,
                                                          const safetensors_limits& limits) {
  std::uint64_t length = 0;
  if (file.size() < sizeof length)
    return make_error(errc::malformed, "the file has ", file.size(), " bytes, too few for the 8 of the header length");
  std::memcpy(&length, file.data(), sizeof length);
  const std::size_t rest = file.size() - sizeof length;
  if (length > rest)
    return make_error(errc::malformed, "the header length is ", length, " but the file has ", rest,
                      " bytes after it (not a safetensors file, or cut short)");
  if (length > limits.max_header_bytes)
    return make_error(errc::unsupported, "the header length is ", length, ", more than the ", limits.max_header_bytes,
                      " allowed");
  const std::string_view text{reinterpret_cast<const char*>(file.data()) + sizeof length, length};
  if (!text.starts_with('{'))
    return make_error(errc::malformed, "the header starts with ", in_quotes(text.substr(0, 1)), ", expected '{'");
  if (const std::size_t at = text.find('\0'); at != text.npos)
    return make_error(errc::malformed, "the header has a zero byte at ", at);
  return text;
}

/// No two tensors of one name.
[[nodiscard]] inline result<void> check_names(const std::vector<tensor_info>& tensors) {
  std::vector<std::string_view> names(tensors.size());
  std::transform(tensors.begin(), tensors.end(), names.begin(),
                 [](const tensor_info& t) -> std::string_view { return t.name; });
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) return make_error(errc::malformed, "the header has two tensors named ", in_quotes(*twice));
  return {};
}

/// A tensor's offsets are in order, inside the data section, and as far apart as its dtype and shape say.
[[nodiscard]] inline result<void> check_extent(const tensor_info& tensor, std::size_t data_bytes) {
  const std::string who = "tensor " + in_quotes(tensor.name);
  if (tensor.begin > tensor.end)
    return make_error(errc::malformed, who, " has data_offsets [", tensor.begin, ", ", tensor.end,
                      "], which end before they begin");
  if (tensor.end > data_bytes)
    return make_error(errc::malformed, who, " has data_offsets [", tensor.begin, ", ", tensor.end,
                      "], beyond the end of the data section of ", data_bytes, " bytes");
  const std::optional<std::size_t> expected = tensor_bytes(tensor.type, tensor.shape);
  if (!expected)
    return make_error(errc::malformed, who, " has shape ", to_string(tensor.shape), " of ", to_string(tensor.type),
                      ", whose size overflows 64 bits");
  if (*expected != tensor.size_bytes())
    return make_error(errc::malformed, who, " of ", to_string(tensor.type), " and shape ", to_string(tensor.shape),
                      " takes ", *expected, " bytes, but its data_offsets [", tensor.begin, ", ", tensor.end, "] hold ",
                      tensor.size_bytes());
  return {};
}

/// Sorts the tensors by offset and checks that they tile the data section, without overlap, hole or rest.
[[nodiscard]] inline result<void> check_layout(std::vector<tensor_info>& tensors, std::size_t data_bytes) {
  for (const tensor_info& tensor : tensors)
    if (auto checked = check_extent(tensor, data_bytes); !checked) return checked;
  std::stable_sort(tensors.begin(), tensors.end(), [](const tensor_info& a, const tensor_info& b) {
    return std::pair{a.begin, a.end} < std::pair{b.begin, b.end};
  });
  std::size_t covered = 0;
  std::string_view previous;
  for (const tensor_info& tensor : tensors) {
    if (tensor.begin < covered)
      return make_error(errc::malformed, "tensor ", in_quotes(tensor.name), " begins at byte ", tensor.begin,
                        " of the data section and overlaps tensor ", in_quotes(previous), ", which ends at ", covered);
    if (tensor.begin > covered)
      return make_error(errc::malformed, "tensor ", in_quotes(tensor.name), " begins at byte ", tensor.begin,
                        " of the data section, expected ", covered, ": the bytes before it belong to no tensor");
    covered = tensor.end;
    previous = tensor.name;
  }
  if (covered != data_bytes)
    return make_error(errc::malformed, "the tensors end at byte ", covered, " of the data section, which has ",
                      data_bytes, " bytes: the rest belongs to no tensor");
  return {};
}

} // namespace detail

/// Reads and checks the header of a file of unknown origin; nothing in it is believed, and memory is bounded by limits.
/// @param file     the whole file; only the header is touched
/// @errors         errc::malformed (breaks the format), errc::unsupported (an unknown dtype, or beyond a limit);
///                 messages start with what is wrong: put the path before them with error::in
[[nodiscard]] inline result<safetensors_header> parse_safetensors_header(std::span<const byte> file,
                                                                         const safetensors_limits& limits = {}) {
  const auto text = detail::header_text(file, limits);
  if (!text) return text.error();
  safetensors_header header;
  detail::header_builder builder{limits, header};
  if (!nlohmann::json::sax_parse(text->begin(), text->end(), &builder))
    return std::move(builder.failure()).in("the header");
  header.data_begin = sizeof(std::uint64_t) + text->size();
  if (auto checked = detail::check_names(header.tensors); !checked) return checked.error();
  if (auto checked = detail::check_layout(header.tensors, file.size() - header.data_begin); !checked)
    return checked.error();
  return header;
}

} // namespace sinq::io
