#pragma once

#include "output_file.hpp"
#include "safetensors_header.hpp"

#include <array>
#include <unordered_set>

namespace sinq::io {

/// The default alignment of data in files: what packed kernels want to load from the mapping.
inline constexpr std::size_t default_alignment_bytes = buffer_alignment_bytes;

/// How a safetensors file is laid out.
struct safetensors_writer_options {
  /// Room kept for the header before the data; a longer header still works, but moves all the data at commit.
  std::size_t header_reserve_bytes = std::size_t{1} << 16;
  /// The data section starts at a multiple of this in the file; a power of two, at least 8.
  std::size_t data_alignment_bytes = default_alignment_bytes;
};

namespace detail {

/// Text as a JSON string; an error if it is not UTF-8.
[[nodiscard]] inline result<std::string> json_string(std::string_view text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    return make_error(errc::invalid_argument, in_quotes(text), " is not valid UTF-8");
  }
}

/// The header's JSON: metadata first, then the tensors in the order given. All text must be UTF-8.
[[nodiscard]] inline std::string header_json(std::span<const tensor_info> tensors, const metadata_map& metadata) {
  std::string out{"{"};
  if (!metadata.empty()) out.append("\"").append(metadata_key).append("\":").append(nlohmann::json(metadata).dump());
  for (const tensor_info& tensor : tensors) {
    out.append(out.size() > 1 ? "," : "").append(nlohmann::json(tensor.name).dump());
    out.append(":{\"dtype\":\"").append(to_string(tensor.type)).append("\",\"shape\":");
    out.append(nlohmann::json(tensor.shape).dump()).append(",\"data_offsets\":[");
    out.append(std::to_string(tensor.begin)).append(",").append(std::to_string(tensor.end)).append("]}");
  }
  return out.append("}");
}

/// The least multiple of a power of two that is not below value.
[[nodiscard]] constexpr std::size_t round_up(std::size_t value, std::size_t power_of_two) {
  return (value + power_of_two - 1) & ~(power_of_two - 1);
}

} // namespace detail

/// Writes a safetensors file tensor by tensor, keeping nothing but their names; see io/README.md for the picture.
/// The file appears at commit(), whole; without it nothing is left. The same calls give the same bytes.
class safetensors_writer {
public:
  /// Begins to write what will be `target`.
  /// @param shown    what messages call it, where the target is itself a temporary name; empty: the target
  /// @errors         errc::invalid_argument (alignment), errc::io, errc::not_found (as output_file::create)
  [[nodiscard]] static result<safetensors_writer> create(const std::filesystem::path& target,
                                                         const safetensors_writer_options& options = {},
                                                         const std::filesystem::path& shown = {}) {
    if (!std::has_single_bit(options.data_alignment_bytes) || options.data_alignment_bytes < length_bytes)
      return make_error(errc::invalid_argument, (shown.empty() ? target : shown).string(), ": data_alignment_bytes is ",
                        options.data_alignment_bytes, ", expected a power of two of at least ", length_bytes);
    auto file = output_file::create(target, shown);
    if (!file) return std::move(file).error();
    safetensors_writer writer{*std::move(file), options};
    if (auto done = writer.write_fill(writer.data_begin_, ' '); !done) return std::move(done).error();
    return writer;
  }

  /// Sets one entry of `__metadata__`, replacing an earlier value; allowed until commit().
  /// @errors         errc::invalid_argument (not UTF-8)
  [[nodiscard]] result<void> set_metadata(std::string key, std::string value) {
    if (auto quoted = detail::json_string(key); !quoted) return refused(std::move(quoted).error());
    if (auto quoted = detail::json_string(value); !quoted) return refused(std::move(quoted).error());
    metadata_.insert_or_assign(std::move(key), std::move(value));
    return {};
  }

  /// Writes a whole tensor.
  /// @param data             its elements in row-major order, little-endian
  /// @param alignment_bytes  its first byte lies at a multiple of this, a power of two up to data_alignment_bytes; the
  ///                         gap before it is a small U8 tensor (see is_padding), since the format allows no holes
  /// @errors         errc::invalid_argument (a name that is empty, taken, reserved or not UTF-8; a size that is not
  ///                 that of dtype and shape; alignment), errc::io
  [[nodiscard]] result<void> add(std::string_view name, dtype type, std::span<const std::size_t> shape,
                                 std::span<const byte> data, std::size_t alignment_bytes = default_alignment_bytes) {
    const std::optional<std::size_t> expected = tensor_bytes(type, shape);
    if (expected != data.size() && !is_open_) return refused(wrong_size(name, type, shape, data.size()));
    if (auto done = begin(name, type, shape, alignment_bytes); !done) return done;
    if (auto done = append(data); !done) return done;
    return end();
  }

  /// Begins a tensor that is produced piecewise: append() its bytes in order, then end().
  /// @errors         as add
  [[nodiscard]] result<void> begin(std::string_view name, dtype type, std::span<const std::size_t> shape,
                                   std::size_t alignment_bytes = default_alignment_bytes) {
    if (auto checked = check_new(name, type, shape, alignment_bytes); !checked) return checked;
    const std::size_t size = *tensor_bytes(type, shape);
    const std::size_t at = data_bytes();
    if (const std::size_t gap = detail::round_up(at, alignment_bytes) - at; size > 0 && gap > 0) {
      tensors_.push_back({.name = std::string{padding_prefix} + std::to_string(padding_count_++),
                          .type = dtype::u8,
                          .shape = {gap},
                          .begin = at,
                          .end = at + gap});
      if (auto done = write_fill(gap, '\0'); !done) return done;
    }
    names_.emplace(name);
    tensors_.push_back({.name = std::string{name},
                        .type = type,
                        .shape = {shape.begin(), shape.end()},
                        .begin = data_bytes(),
                        .end = data_bytes() + size});
    is_open_ = true;
    return {};
  }

  /// Adds bytes to the tensor that was begun.
  /// @errors         errc::invalid_argument (none was begun, or more bytes than its shape has), errc::io
  [[nodiscard]] result<void> append(std::span<const byte> data) {
    if (!is_open_) return refused(make_error(errc::invalid_argument, "no tensor was begun to append to"));
    const tensor_info& tensor = tensors_.back();
    if (data.size() > tensor.end - data_bytes())
      return refused(wrong_size(tensor.name, tensor.type, tensor.shape, data_bytes() - tensor.begin + data.size()));
    return file_.write(data);
  }

  /// Ends the tensor that was begun.
  /// @errors         errc::invalid_argument (none was begun, or bytes are missing)
  [[nodiscard]] result<void> end() {
    if (!is_open_) return refused(make_error(errc::invalid_argument, "no tensor was begun to end"));
    const tensor_info& tensor = tensors_.back();
    if (data_bytes() != tensor.end)
      return refused(wrong_size(tensor.name, tensor.type, tensor.shape, data_bytes() - tensor.begin));
    is_open_ = false;
    return {};
  }

  /// The file that will be written.
  [[nodiscard]] const std::filesystem::path& target() const { return file_.target(); }
  /// Bytes of the data section so far, padding included.
  [[nodiscard]] std::size_t data_bytes() const { return file_.size() - data_begin_; }
  /// The tensors so far, padding included, in file order.
  [[nodiscard]] std::span<const tensor_info> tensors() const { return tensors_; }

  /// Writes the header, makes the file durable and gives it its name; the writer is finished then.
  /// @errors         errc::invalid_argument (a tensor is not ended), errc::unsupported (a header longer than readers
  ///                 accept), errc::io
  [[nodiscard]] result<void> commit() {
    if (is_open_)
      return refused(
          make_error(errc::invalid_argument, "tensor ", in_quotes(tensors_.back().name), " was begun but not ended"));
    std::string json = detail::header_json(tensors_, metadata_);
    const std::size_t needed = detail::round_up(length_bytes + json.size(), options_.data_alignment_bytes);
    if (constexpr std::size_t limit = safetensors_limits{}.max_header_bytes; needed - length_bytes > limit)
      return refused(make_error(errc::unsupported, "the header takes ", json.size(), " bytes, more than the ", limit,
                                " that readers accept"));
    if (needed > data_begin_) {
      if (auto done = file_.insert(data_begin_, needed - data_begin_); !done) return done;
      data_begin_ = needed;
    }
    json.resize(data_begin_ - length_bytes, ' ');
    const std::uint64_t length = json.size();
    if (auto done = file_.overwrite(0, std::as_bytes(std::span{&length, 1})); !done) return done;
    if (auto done = file_.overwrite(length_bytes, std::as_bytes(std::span{json})); !done) return done;
    return file_.commit();
  }

private:
  static constexpr std::size_t length_bytes = sizeof(std::uint64_t); ///< the header's length, before the header

  safetensors_writer(output_file file, const safetensors_writer_options& options)
      : file_{std::move(file)}, options_{options}, data_begin_{detail::round_up(
                                                       std::max(options.header_reserve_bytes, length_bytes + 2),
                                                       options.data_alignment_bytes)} {}

  [[nodiscard]] error refused(error&& failure) const { return std::move(failure).in(file_.shown().string()); }

  [[nodiscard]] static error wrong_size(std::string_view name, dtype type, std::span<const std::size_t> shape,
                                        std::size_t given_bytes) {
    const std::optional<std::size_t> expected = tensor_bytes(type, shape);
    return make_error(errc::invalid_argument, "tensor ", in_quotes(name), " of ", to_string(type), " and shape ",
                      to_string(shape), " takes ", expected ? std::to_string(*expected) : "more than 2^64",
                      " bytes, but ", given_bytes, " were given");
  }

  /// Whether a tensor of that name and kind can be begun now.
  [[nodiscard]] result<void> check_new(std::string_view name, dtype type, std::span<const std::size_t> shape,
                                       std::size_t alignment_bytes) const {
    const std::string who = "tensor " + in_quotes(name);
    if (is_open_)
      return refused(make_error(errc::invalid_argument, who, " cannot begin before tensor ",
                                in_quotes(tensors_.back().name), " ended"));
    if (name.empty()) return refused(make_error(errc::invalid_argument, "a tensor's name must not be empty"));
    if (name == metadata_key || is_padding(name))
      return refused(make_error(errc::invalid_argument, who, " has a name reserved by the format or for padding"));
    if (auto quoted = detail::json_string(name); !quoted) return refused(std::move(quoted).error());
    if (names_.contains(std::string{name}))
      return refused(make_error(errc::invalid_argument, who, " is already in the file"));
    if (!tensor_bytes(type, shape)) return refused(wrong_size(name, type, shape, 0));
    if (!std::has_single_bit(alignment_bytes) || alignment_bytes > options_.data_alignment_bytes)
      return refused(make_error(errc::invalid_argument, who, " has alignment ", alignment_bytes,
                                ", expected a power of two up to ", options_.data_alignment_bytes));
    return {};
  }

  [[nodiscard]] result<void> write_fill(std::size_t count, char filler) {
    std::array<char, 4096> chunk;
    chunk.fill(filler);
    for (std::size_t left = count; left > 0;) {
      const std::size_t part = std::min(left, chunk.size());
      if (auto done = file_.write(std::as_bytes(std::span{chunk}.first(part))); !done) return done;
      left -= part;
    }
    return {};
  }

  output_file file_;
  safetensors_writer_options options_;
  std::size_t data_begin_; ///< first byte of the data section in the file
  std::vector<tensor_info> tensors_;
  std::unordered_set<std::string> names_;
  metadata_map metadata_;
  std::size_t padding_count_ = 0;
  bool is_open_ = false; ///< between begin() and end() of tensors_.back()
};

} // namespace sinq::io
