#include "cuda/layout.hpp"

#include <algorithm>

using namespace sinq_test;
namespace cuda = sinq::cuda;

namespace {

/// Whether every code of a unit has bits of its own, and all lie within the record's codes.
bool places_are_apart(code_form form) {
  std::vector<int> used(256 * 8 * bits_of(form));
  const auto take = [&](unsigned byte, unsigned shift, unsigned bits) {
    for (unsigned k = 0; k < bits; ++k) ++used.at(8 * byte + shift + k);
  };
  for (unsigned i = 0; i < cuda::tile_rows; ++i)
    for (unsigned j = 0; j < cuda::unit_cols; ++j) {
      const cuda::code_place place = place_of(form, i, j);
      const bool planes = form == code_form::u3;
      take(place.byte, place.shift, planes ? 2 : bits_of(form));
      if (planes) take(place.high_byte, place.high_shift, 1);
    }
  return std::all_of(used.begin(), used.end(), [](int n) { return n == 1; });
}

std::string error_of(const sinq::packed_matrix& p) {
  const auto image = cuda::to_device_layout(p);
  return image ? std::string{"none"} : std::string{sinq::to_string(image.error().code)} + ": " + image.error().message;
}

sinq::packed_matrix packed(const sinq::matrix_format& format, std::uint64_t seed = 1) {
  return value_of(sinq::pack(random_quantized(format, seed)));
}

} // namespace

TEST_CASE("each code has bits of its own") {
  for (const code_form form : {code_form::u2, code_form::u3, code_form::u4, code_form::u8, code_form::table4})
    CHECK(places_are_apart(form));
}

TEST_CASE("an mma's step of 16 columns stays within 32 columns, whatever the form") {
  // Columns 64 b + 32 h + 8 p + 2 i + e of a lane: i / 2 is the step within 32 columns.
  for (unsigned j = 0; j < cuda::unit_cols; j += 2) {
    const unsigned lane = place_of(code_form::table4, 0, j).byte % 512 / 16;
    CHECK(lane == j / 8 % 4);
    CHECK(place_of(code_form::table4, 0, j).byte == place_of(code_form::table4, 0, j + 1).byte);
  }
}

TEST_CASE("words of codes go to where codes one by one go, and come back") {
  std::uint64_t seed = 1;
  for (sinq::matrix_format f : every_form())
    for (const std::size_t rows : {1u, 8u, 9u, 16u, 29u})
      for (const std::size_t cols : {1u, 31u, 64u, 65u, 127u, 128u, 129u, 310u}) {
        f.rows = rows;
        f.cols = cols;
        f.group_size = std::size_t{32} << seed % 3;
        check_words(f, seed++);
      }
}

TEST_CASE("a code in another's place is noticed") {
  for (const sinq::matrix_format& f : every_form()) {
    sinq::matrix_format format = f;
    format.rows = 17;
    format.cols = 130;
    const sinq::packed_matrix p = random_weight(format, 1);
    cuda::device_image image = value_of(cuda::to_device_layout(p));
    const std::vector<std::uint8_t> expected = codes_one_by_one(p, image.format);
    REQUIRE(different_code_bytes(image, expected) == 0);
    image.weights[0] ^= 1; // a code
    CHECK(different_code_bytes(image, expected) == 1);
    image.weights[image.weights.size() - image.format.record_bytes() + image.format.code_bytes() - 1] ^= 128; // padding
    CHECK(different_code_bytes(image, expected) == 2);
  }
}

TEST_CASE("what goes to the device comes back") {
  for (const sinq::matrix_format& f : std::vector<sinq::matrix_format>{{.bits = 2},
                                                                       {.bits = 3, .group_size = 32},
                                                                       {.bits = 4, .group_size = 128},
                                                                       {.bits = 8},
                                                                       {.bits = 4, .grid = sinq::grid::nf4},
                                                                       {.bits = 4, .grid = sinq::grid::custom}}) {
    sinq::matrix_format format = f;
    format.rows = 37;
    format.cols = 300;
    const sinq::packed_matrix p = random_weight(format, 5, 10);
    const cuda::device_image image = value_of(cuda::to_device_layout(p));
    const auto w = value_of(cuda::device_matrix::upload(image));
    CHECK(w.size_bytes() > p.size_bytes());
    const cuda::device_image back = value_of(w.download());
    CHECK(back.weights == image.weights);
    CHECK(same_packed(cuda::from_device_layout(back, p.method), p));
    CHECK(std::all_of(image.t.begin(), image.t.end(), [](float t) { return t < 1; }));
  }
}

TEST_CASE("every storage that the device does not have becomes one that it has") {
  std::vector<sinq::matrix_format> formats;
  for (const int bits : {5, 6}) formats.push_back({.bits = bits});
  formats.push_back({.bits = 3, .grid = sinq::grid::nf3});
  formats.push_back({.bits = 2, .grid = sinq::grid::custom});
  formats.push_back({.aux = sinq::aux_dtype::bf16, .has_zero = false});
  formats.push_back({.aux = sinq::aux_dtype::f32, .scale_bits = 6, .zero_bits = 4, .super_group = 2});
  formats.push_back({.group_size = 256});
  formats.push_back({.group_size = 1000});
  formats.push_back({.has_col_scale = true, .col_scale_type = sinq::dtype::f8_e4m3});
  for (sinq::matrix_format f : formats) {
    f.rows = 21;
    f.cols = 400;
    CAPTURE(f.bits, int(f.grid), int(f.aux), f.group_size, f.scale_bits);
    const sinq::packed_matrix p = packed(f);
    const cuda::device_image image = value_of(cuda::to_device_layout(p));
    const std::vector<float> expected = sinq::dequantize(p);
    const std::vector<float> actual = sinq::dequantize(cuda::from_device_layout(image, "test"));
    double worst = 0, largest = 0;
    for (std::size_t n = 0; n < expected.size(); ++n) {
      worst = std::max(worst, std::fabs(double{actual[n]} - double{expected[n]}));
      largest = std::max(largest, std::fabs(double{expected[n]}));
    }
    CHECK(worst <= 0x1p-11 * largest);
  }
}

TEST_CASE("scales far from f16 keep their precision by a power of two") {
  sinq::matrix_format f{.rows = 20, .cols = 256, .aux = sinq::aux_dtype::f32};
  sinq::quantized_matrix q = random_quantized(f, 3);
  for (float& scale : q.scale) scale *= 1e-20f;
  const sinq::packed_matrix p = value_of(sinq::pack(q));
  const std::vector<float> expected = sinq::dequantize(p);
  const std::vector<float> actual =
      sinq::dequantize(cuda::from_device_layout(value_of(cuda::to_device_layout(p)), "test"));
  for (std::size_t n = 0; n < expected.size(); ++n)
    CHECK(std::fabs(actual[n] - expected[n]) <= 0x1p-11f * std::fabs(expected[n]));
}

TEST_CASE("what the device cannot have is an error") {
  CHECK(error_of(packed({.rows = 4, .cols = 64, .rotation = 64})) ==
        "unsupported: cuda: inputs that are rotated in blocks of 64");
  CHECK(error_of(packed({.rows = 8, .cols = 64, .tile_rows = 4, .has_col_scale = true})) ==
        "unsupported: cuda: tiles of 4 rows, expected one t for all 8");
  CHECK(error_of(packed({.rows = 4, .cols = 64, .group_size = 16})) ==
        "unsupported: cuda: groups of 16 columns, expected a multiple of 32");
  CHECK(error_of(packed({.rows = 4, .cols = 64, .bits = 8, .grid = sinq::grid::custom})) ==
        "unsupported: cuda: a codebook of 8 bits, expected at most 4");
  sinq::quantized_matrix q = random_quantized({.rows = 4, .cols = 64, .aux = sinq::aux_dtype::f32}, 1);
  q.zero[2] = 100000.0f;
  CHECK(error_of(value_of(sinq::pack(q))).starts_with("not representable: cuda: scale "));
  sinq::packed_matrix short_of_codes = packed({.rows = 4, .cols = 64});
  short_of_codes.codes = {};
  CHECK(error_of(short_of_codes).starts_with("malformed"));
}
