#pragma once

#include "mapped_file.hpp"
#include "safetensors_header.hpp"

#include <algorithm>

namespace sinq::io {

/// Which file of a sharded model each tensor is in, as `model.safetensors.index.json` tells: tensor name -> file name.
using weight_map = std::map<std::string, std::string>;

namespace detail {

/// Reads the `weight_map` of an index and skips whatever else is in it, without building a document tree.
class weight_map_builder {
public:
  weight_map_builder(const safetensors_limits& limits, weight_map& map) : limits_{limits}, map_{map} {}

  bool start_object(std::size_t) {
    if (depth_ == 1 && key_ == "weight_map") {
      if (std::exchange(has_map_, true)) return fail(errc::malformed, "has two weight_map objects");
      in_map_ = true;
      ++depth_;
      return true;
    }
    return enter();
  }
  bool end_object() {
    in_map_ = false;
    --depth_;
    return true;
  }
  bool start_array(std::size_t) {
    if (depth_ == 0) return fail(errc::malformed, "is an array, expected an object");
    return enter();
  }
  bool end_array() {
    --depth_;
    return true;
  }
  bool key(std::string& name) {
    key_.swap(name);
    return true;
  }
  bool string(std::string& file) {
    if (!in_map_) return scalar("a string");
    if (map_.size() >= limits_.max_tensors)
      return fail(errc::unsupported, "has more than the ", limits_.max_tensors, " tensors allowed");
    if (!map_.try_emplace(key_, std::move(file)).second)
      return fail(errc::malformed, "has two weight_map entries for tensor ", in_quotes(key_));
    return true;
  }

  bool null() { return scalar("null"); }
  bool boolean(bool) { return scalar("a boolean"); }
  bool number_integer(std::int64_t) { return scalar("a number"); }
  bool number_unsigned(std::uint64_t) { return scalar("a number"); }
  bool number_float(double, const std::string&) { return scalar("a number"); }
  bool binary(std::vector<std::uint8_t>&) { return scalar("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& reason) {
    return fail(errc::malformed, "is not valid JSON at byte ", position, ": ", in_quotes(reason.what()));
  }

  [[nodiscard]] bool has_map() const { return has_map_; }
  /// Why the parse ended early; its sentence goes on from the index's path.
  [[nodiscard]] error& failure() { return failure_; }

private:
  static constexpr int max_depth = 16;

  bool enter() {
    if (in_map_) return fail(errc::malformed, "has a nested value for tensor ", in_quotes(key_), " in its weight_map");
    if (depth_ >= max_depth) return fail(errc::malformed, "is nested more than ", max_depth, " levels deep");
    ++depth_;
    return true;
  }

  bool scalar(std::string_view kind) {
    if (depth_ == 0) return fail(errc::malformed, "is ", kind, ", expected an object");
    if (in_map_)
      return fail(errc::malformed, "has ", kind, " for tensor ", in_quotes(key_),
                  " in its weight_map, expected a string");
    return true;
  }

  template <class... Pieces>
  bool fail(errc code, const Pieces&... pieces) {
    failure_ = make_error(code, pieces...);
    return false;
  }

  const safetensors_limits& limits_;
  weight_map& map_;
  error failure_;
  std::string key_;
  int depth_ = 0;
  bool in_map_ = false;
  bool has_map_ = false;
};

/// Whether a file named by an index lies in the index's directory; what a stranger wrote must not lead elsewhere.
[[nodiscard]] inline bool stays_inside(std::string_view name) {
  const bool is_plain =
      std::none_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; });
  const std::filesystem::path path{name};
  return is_plain && path.has_filename() && path.is_relative() &&
         std::find(path.begin(), path.end(), "..") == path.end();
}

} // namespace detail

/// Reads an index: JSON of unknown origin, whose size, depth and number of tensors are bounded while it is read.
/// @param index    its text
/// @errors         errc::malformed (not such JSON, or a file outside the directory), errc::unsupported (beyond a
/// limit);
///                 messages go on from the index's path: put it before them with error::in
[[nodiscard]] inline result<weight_map> parse_weight_map(std::string_view index,
                                                         const safetensors_limits& limits = {}) {
  if (index.size() > limits.max_header_bytes)
    return make_error(errc::unsupported, "has ", index.size(), " bytes, more than the ", limits.max_header_bytes,
                      " allowed");
  if (const std::size_t at = index.find('\0'); at != index.npos)
    return make_error(errc::malformed, "has a zero byte at ", at);
  weight_map map;
  detail::weight_map_builder builder{limits, map};
  if (!nlohmann::json::sax_parse(index.begin(), index.end(), &builder)) return std::move(builder.failure());
  if (!builder.has_map()) return make_error(errc::malformed, "has no weight_map");
  for (const auto& [tensor, file] : map)
    if (!detail::stays_inside(file))
      return make_error(errc::malformed, "puts tensor ", in_quotes(tensor), " in file ", in_quotes(file),
                        ", which is not a path inside the directory");
  return map;
}

/// Reads an index file.
/// @errors         as mapped_file::open and parse_weight_map; every message starts with the path
[[nodiscard]] inline result<weight_map> load_weight_map(const std::filesystem::path& path,
                                                        const safetensors_limits& limits = {}) {
  const auto file = mapped_file::open(path);
  if (!file) return file.error();
  const std::span<const byte> bytes = (*file)->bytes();
  auto map = parse_weight_map({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, limits);
  if (!map) return std::move(map).error().in(path.string());
  return map;
}

} // namespace sinq::io
