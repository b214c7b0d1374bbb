#pragma once

/// Where the codes of a weight should be in the memory of the device, one by one.

#include "cuda/device.hpp"
#include "support/each_isa.hpp"
#include "support/packed.hpp"

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

namespace sinq_test {

namespace cuda = sinq::cuda;

/// What an image should hold where its codes are, put there one by one; the rest is 0.
[[nodiscard]] inline std::vector<std::uint8_t> codes_one_by_one(const sinq::packed_matrix& p,
                                                                const cuda::device_format& d) {
  const sinq::quantized_matrix q = sinq::unpack(p);
  std::vector<std::uint8_t> weights(d.weight_bytes());
  for (unsigned i = 0; i < d.rows; ++i)
    for (unsigned j = 0; j < d.cols; ++j) {
      const unsigned code = q.code_matrix()(i, j);
      const cuda::code_place place = place_of(d.form, i % cuda::tile_rows, j % cuda::unit_cols);
      std::uint8_t* const to =
          weights.data() + (i / cuda::tile_rows * d.units() + j / cuda::unit_cols) * d.record_bytes();
      const bool planes = d.form == code_form::u3;
      to[place.byte] |= static_cast<std::uint8_t>((planes ? code & 3u : code) << place.shift);
      if (planes) to[place.high_byte] |= static_cast<std::uint8_t>(code >> 2 << place.high_shift);
    }
  return weights;
}

/// How many bytes of codes in an image are not those.
[[nodiscard]] inline std::size_t different_code_bytes(const cuda::device_image& image,
                                                      const std::vector<std::uint8_t>& expected) {
  std::size_t count = 0;
  for (std::size_t n = 0; n < expected.size(); ++n)
    count += n % image.format.record_bytes() < image.format.code_bytes() && image.weights.at(n) != expected[n];
  return count;
}

/// The same matrix with other packed codes.
[[nodiscard]] inline sinq::packed_matrix with_codes(sinq::packed_matrix p,
                                                    const std::function<void(std::span<sinq::byte>)>& change) {
  sinq::aligned_buffer<sinq::byte> codes{p.codes.size()};
  std::copy(p.codes.span().begin(), p.codes.span().end(), codes.data());
  change(codes.span());
  p.codes = sinq::shared_bytes{std::move(codes)};
  return p;
}

/// The same matrix with ones in the padding of its rows of codes.
[[nodiscard]] inline sinq::packed_matrix with_set_padding(const sinq::packed_matrix& p) {
  const std::size_t used = p.format.cols * static_cast<std::size_t>(p.format.bits);
  return with_codes(p, [&](std::span<sinq::byte> codes) {
    const std::size_t row_bits = codes.size() / p.format.rows * 8;
    for (std::size_t n = 0; n < codes.size() * 8; ++n)
      if (n % row_bits >= used) codes[n / 8] |= sinq::byte{1} << n % 8;
  });
}

/// The same image with ones in the padding of its codes. @pre the forms of p and of the image have the same bits
[[nodiscard]] inline cuda::device_image with_set_padding(cuda::device_image image, const sinq::packed_matrix& p) {
  const sinq::packed_matrix all_set = with_codes(p, [](auto codes) { std::ranges::fill(codes, sinq::byte{0xff}); });
  const std::vector<std::uint8_t> used = codes_one_by_one(all_set, image.format);
  for (std::size_t n = 0; n < used.size(); ++n)
    if (n % image.format.record_bytes() < image.format.code_bytes())
      image.weights[n] |= static_cast<std::uint8_t>(~used[n]);
  return image;
}

/// One of each width and grid that the device has a form for.
[[nodiscard]] inline std::vector<sinq::matrix_format> every_form() {
  std::vector<sinq::matrix_format> formats;
  for (const int bits : {2, 3, 4, 5, 6, 8}) formats.push_back({.bits = bits});
  for (const int bits : {2, 3, 4}) formats.push_back({.bits = bits, .grid = sinq::grid::custom});
  formats.push_back({.bits = 3, .grid = sinq::grid::nf3});
  formats.push_back({.bits = 4, .grid = sinq::grid::nf4});
  return formats;
}

/// Whether words of codes go to the device as codes do one by one, and come back, on every instruction set.
inline void check_words(const sinq::matrix_format& format, std::uint64_t seed) {
  CAPTURE(format.rows, format.cols, format.bits, int(format.grid), format.group_size);
  const sinq::packed_matrix p = random_weight(format, seed), padded = with_set_padding(p);
  std::vector<std::uint8_t> expected;
  for (const sinq::isa id : isas_here()) {
    const on_isa scope{id};
    const cuda::device_image image = value_of(cuda::to_device_layout(p));
    if (expected.empty()) expected = codes_one_by_one(p, image.format);
    CHECK(different_code_bytes(image, expected) == 0);
    CHECK(value_of(cuda::to_device_layout(padded)).weights == image.weights);
    if (static_cast<unsigned>(format.bits) != bits_of(image.format.form)) continue;
    CHECK(same_packed(cuda::from_device_layout(image, p.method), p));
    CHECK(same_packed(cuda::from_device_layout(with_set_padding(image, p), p.method), p));
  }
}

} // namespace sinq_test
