#include "support/catch.hpp"
#include "support/methods.hpp"
#include "support/packed.hpp"
#include "support/random_quantized.hpp"

#include <sinq/pack/pack.hpp>
#include <sinq/pack/panel_auxiliaries.hpp>
#include <sinq/pack/panels.hpp>
#include <sinq/pack/to_packed.hpp>

using namespace sinq_test;

namespace {

/// The code of row r, column j of a panel, by the formula of code_planes.
unsigned code_at(std::span<const sinq::byte> panel, int bits, std::size_t r, std::size_t j) {
  unsigned code = 0;
  for (const sinq::code_plane& plane : sinq::code_planes(bits)) {
    if (plane.bits == 0) continue;
    const auto w = static_cast<std::size_t>(plane.bits);
    const std::size_t in_block = j % sinq::block_cols;
    const std::size_t v = in_block / (32 / w), in_vector = in_block % (32 / w);
    const std::size_t s = in_vector / 4, b = in_vector % 4;
    const std::size_t at = j / sinq::block_cols * sinq::block_bytes(bits) + plane.offset_bytes + v * 64 + 4 * r + b;
    code |= ((static_cast<unsigned>(panel[at]) >> (s * w)) & ((1u << w) - 1)) << plane.shift;
  }
  return code;
}

sinq::packed_matrix random_packed(const sinq::matrix_format& format, std::uint64_t seed) {
  auto p = sinq::pack(random_quantized(format, seed));
  REQUIRE(p);
  return *std::move(p);
}

sinq::panel_matrix panels_of(const sinq::packed_matrix& p) {
  auto w = sinq::to_panels(p);
  REQUIRE(w);
  return *std::move(w);
}

/// A copy of a part with one bit of byte n turned over.
sinq::shared_bytes flipped(const sinq::shared_bytes& part, std::size_t n, unsigned bit) {
  sinq::aligned_buffer<sinq::byte> copy{part.size()};
  std::copy(part.span().begin(), part.span().end(), copy.begin());
  copy[n] ^= sinq::byte{1} << bit;
  return sinq::shared_bytes{std::move(copy)};
}

} // namespace

TEST_CASE("codes lie in panels as the formula says, and zeros fill them up") {
  for (const int bits : sinq::supported_bits)
    for (const std::size_t tile_rows : {0u, 5u, 16u, 40u})
      for (const auto& [rows, cols] : ragged_shapes) {
        const auto q = random_quantized({.rows = rows, .cols = cols, .bits = bits, .tile_rows = tile_rows}, rows);
        const auto p = sinq::pack(q);
        REQUIRE(p);
        const auto w = sinq::to_panels(*p);
        REQUIRE(w);
        const sinq::panel_shape shape{q.format};
        REQUIRE(w->codes.size() == shape.panels * shape.blocks * sinq::block_bytes(bits));
        const std::size_t bytes = w->codes.size() / shape.panels;
        std::size_t seen = 0;
        bool same = true;
        for (std::size_t n = 0; n < shape.panels; ++n)
          for (std::size_t r = 0; r < sinq::panel_rows; ++r)
            for (std::size_t j = 0; j < shape.blocks * sinq::block_cols; ++j) {
              const bool inside = r < shape.row_count(n) && j < cols;
              seen += inside;
              const unsigned expected = inside ? q.code_matrix()(shape.row_begin(n) + r, j) : 0;
              same &= code_at(w->codes.span().subspan(n * bytes, bytes), bits, r, j) == expected;
            }
        CHECK(same);
        CHECK(seen == rows * cols);
      }
}

TEST_CASE("scales, zero points and their bases lie 16 rows side by side") {
  for (const sinq::matrix_format& f : every_storage(37, 100)) {
    const auto q = random_quantized(f, 9);
    const auto p = sinq::pack(q);
    REQUIRE(p);
    const auto w = sinq::to_panels(*p);
    REQUIRE(w);
    const sinq::packed_sizes sizes = sinq::panel_bytes(f);
    CHECK(w->scale.size() == sizes.scale);
    CHECK(w->zero.size() == sizes.zero);
    CHECK(w->scale_base.size() == sizes.scale_base);
    CHECK(w->zero_base.size() == sizes.zero_base);
    CHECK(w->size_bytes() == sizes.total());
    const sinq::panel_shape shape{f};
    std::vector<float> scales(f.groups() * sinq::panel_rows), zeros(scales.size());
    bool same = true, same_loaded = true;
    for (std::size_t n = 0; n < shape.panels; ++n) {
      sinq::load_auxiliaries(*w, n, scales, zeros);
      for (std::size_t r = 0; r < shape.row_count(n); ++r)
        for (std::size_t g = 0; g < f.groups(); ++g) {
          const std::size_t i = shape.row_begin(n) + r;
          const std::size_t at = (n * f.groups() + g) * sinq::panel_rows + r;
          const std::size_t base = (n * f.super_groups() + f.super_group_of(g)) * sinq::panel_rows + r;
          const std::size_t aux = size_bytes(storage(f.aux));
          float unit = 0, scale = 0;
          if (f.scale_bits == 0) {
            sinq::load_floats(w->scale.data() + at * aux, storage(f.aux), {&scale, 1});
          } else {
            sinq::load_floats(w->scale_base.data() + base * aux, storage(f.aux), {&unit, 1});
            scale = unit * static_cast<float>(w->scale.span()[at]);
          }
          same &= scale == q.scale[i * f.groups() + g];
          same_loaded &= scales[g * sinq::panel_rows + r] == q.scale[i * f.groups() + g];
          same_loaded &= zeros[g * sinq::panel_rows + r] == q.zero_at(i, g);
        }
    }
    CHECK(same);
    CHECK(same_loaded);
  }
}

TEST_CASE("to_panels refuses parts of the wrong size") {
  const auto p = sinq::pack(random_quantized({.rows = 4, .cols = 8, .group_size = 8}, 1));
  REQUIRE(p);
  sinq::packed_matrix cut = *p;
  cut.codes = sinq::shared_bytes{p->codes.span().first(8), nullptr};
  const auto w = sinq::to_panels(cut);
  REQUIRE_FALSE(w);
  CHECK(w.error().code == sinq::errc::malformed);
}

TEST_CASE("panels give the packed matrix back, byte for byte") {
  for (const auto& [rows, cols] : ragged_shapes) {
    for (const sinq::matrix_format& format : every_storage(rows, cols)) {
      const sinq::packed_matrix p = random_packed(format, rows + cols);
      const auto back = sinq::to_packed(panels_of(p));
      REQUIRE(back);
      CHECK(sinq::check_packed(*back));
      CHECK(same_packed(*back, p));
    }
    for (const int bits : sinq::supported_bits)
      for (const std::size_t tile_rows : {0u, 1u, 5u, 16u, 40u}) {
        const sinq::packed_matrix p =
            random_packed({.rows = rows, .cols = cols, .bits = bits, .tile_rows = tile_rows}, rows);
        const auto back = sinq::to_packed(panels_of(p));
        REQUIRE(back);
        CHECK(same_packed(*back, p));
      }
  }
}

TEST_CASE("every bit of the matrix comes back from its panels, and none of the padding") {
  const sinq::matrix_format f{.rows = 21, .cols = 70, .bits = 3, .group_size = 32, .scale_bits = 6};
  const sinq::packed_matrix p = random_packed(f, 3);
  const sinq::panel_matrix w = panels_of(p);
  std::size_t seen = 0;
  for (std::size_t n = 0; n < w.codes.size(); ++n)
    for (unsigned bit = 0; bit < 8; ++bit) {
      sinq::panel_matrix damaged = w;
      damaged.codes = flipped(w.codes, n, bit);
      seen += same_packed(*sinq::to_packed(damaged), p) ? 0 : 1;
    }
  CHECK(seen == f.rows * f.cols * 3);
  seen = 0;
  for (std::size_t n = 0; n < w.scale.size(); ++n)
    for (unsigned bit = 0; bit < 8; ++bit) {
      sinq::panel_matrix damaged = w;
      damaged.scale = flipped(w.scale, n, bit);
      const auto back = sinq::to_packed(damaged);
      REQUIRE(sinq::check_packed(*back));
      seen += same_packed(*back, p) ? 0 : 1;
    }
  CHECK(seen == f.rows * f.groups() * 6);
}

TEST_CASE("panels with parts of the wrong size, or beyond all sizes, are refused") {
  const sinq::panel_matrix good =
      panels_of(random_packed({.rows = 20, .cols = 70, .scale_bits = 6, .zero_bits = 4, .has_col_scale = true}, 1));
  REQUIRE(sinq::check_panels(good));
  const auto refused = [](const sinq::panel_matrix& w, sinq::errc code, const std::string& says) {
    for (const sinq::result<void>& found : {sinq::check_panels(w), [&]() -> sinq::result<void> {
                                              const auto p = sinq::to_packed(w);
                                              if (!p) return p.error();
                                              return {};
                                            }()}) {
      REQUIRE_FALSE(found);
      CHECK(found.error().code == code);
      INFO(found.error().message);
      CHECK(found.error().message.find(says) != std::string::npos);
    }
  };
  const std::pair<sinq::shared_bytes sinq::matrix_parts::*, std::string> parts[]{
      {&sinq::matrix_parts::codes, "codes"},         {&sinq::matrix_parts::scale, "scale"},
      {&sinq::matrix_parts::zero, "zero"},           {&sinq::matrix_parts::scale_base, "scale_base"},
      {&sinq::matrix_parts::zero_base, "zero_base"}, {&sinq::matrix_parts::col_scale, "t"}};
  for (const auto& [part, name] : parts) {
    sinq::panel_matrix cut = good;
    const std::size_t size = (good.*part).size();
    cut.*part = sinq::shared_bytes{(good.*part).span().first(size - 1), nullptr};
    refused(cut, sinq::errc::malformed,
            name + " has " + std::to_string(size - 1) + " bytes, expected " + std::to_string(size));
  }
  sinq::panel_matrix extra = good;
  extra.levels = good.scale_base;
  refused(extra, sinq::errc::malformed, "levels");
  sinq::panel_matrix empty;
  refused(empty, sinq::errc::empty_matrix, "0 x 0");
  sinq::panel_matrix huge;
  huge.format = {.rows = std::size_t{1} << 56, .cols = 1, .bits = 8, .tile_rows = 1};
  refused(huge, sinq::errc::invalid_argument, "2^56 elements");
}

TEST_CASE("a method goes with the panels, and progress can stop them") {
  const sinq::packed_matrix p = random_packed({.rows = 200, .cols = 64}, 5);
  const sinq::panel_matrix w = panels_of(p);
  CHECK(w.method == p.method);
  const auto stopped = sinq::to_packed(w, {.progress = [](double) { return false; }});
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code == sinq::errc::cancelled);
}
