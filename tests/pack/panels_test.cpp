#include "support/catch.hpp"
#include "support/methods.hpp"
#include "support/random_quantized.hpp"

#include <sinq/pack/pack.hpp>
#include <sinq/pack/panels.hpp>

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
