#pragma once

#include "mapped_file.hpp"
#include "safetensors_header.hpp"

#include "../core/aligned_buffer.hpp"

#include <algorithm>
#include <numeric>

namespace sinq::io {

/// A safetensors file, mapped and checked: its tensors can be read in place. Copies share the mapping.
class safetensors_file {
public:
  /// Maps the file and reads its header.
  /// @errors         errc::not_found, errc::io (as mapped_file::open), errc::malformed, errc::unsupported (as
  ///                 parse_safetensors_header); every message starts with the path
  [[nodiscard]] static result<safetensors_file> open(const std::filesystem::path& path,
                                                     const safetensors_limits& limits = {}) {
    auto file = mapped_file::open(path);
    if (!file) return std::move(file).error();
    auto header = parse_safetensors_header((*file)->bytes(), limits);
    if (!header) return std::move(header).error().in(path.string());
    return safetensors_file{path, *std::move(file), *std::move(header)};
  }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  /// All tensors in the order of their bytes, padding included (see is_padding).
  [[nodiscard]] const std::vector<tensor_info>& tensors() const { return header_.tensors; }
  [[nodiscard]] const metadata_map& metadata() const { return header_.metadata; }

  /// The tensor of that name, or nullptr; valid as long as this object stays where it is.
  [[nodiscard]] const tensor_info* find(std::string_view name) const {
    const auto at =
        std::lower_bound(by_name_.begin(), by_name_.end(), name,
                         [this](std::size_t i, std::string_view key) { return header_.tensors[i].name < key; });
    if (at == by_name_.end() || header_.tensors[*at].name != name) return nullptr;
    return &header_.tensors[*at];
  }

  /// The tensor's bytes in the mapping, which they keep alive; aligned only as the file's writer aligned them.
  /// @param tensor   one of tensors()
  [[nodiscard]] shared_bytes data(const tensor_info& tensor) const {
    SINQ_ASSERT(tensor.end <= file_->bytes().size() - header_.data_begin);
    return {file_->bytes().subspan(header_.data_begin + tensor.begin, tensor.size_bytes()), file_};
  }

  /// Hints that the tensor's bytes are no longer needed; see mapped_file::release.
  void release(const tensor_info& tensor) const {
    file_->release(header_.data_begin + tensor.begin, tensor.size_bytes());
  }

private:
  safetensors_file(std::filesystem::path path, std::shared_ptr<const mapped_file> file, safetensors_header header)
      : path_{std::move(path)}, file_{std::move(file)}, header_{std::move(header)}, by_name_(header_.tensors.size()) {
    std::iota(by_name_.begin(), by_name_.end(), std::size_t{0});
    std::sort(by_name_.begin(), by_name_.end(),
              [this](std::size_t a, std::size_t b) { return header_.tensors[a].name < header_.tensors[b].name; });
  }

  std::filesystem::path path_;
  std::shared_ptr<const mapped_file> file_;
  safetensors_header header_;
  std::vector<std::size_t> by_name_; ///< indices of tensors, sorted by their names
};

} // namespace sinq::io
