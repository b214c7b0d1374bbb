#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/each_isa.hpp"
#include "support/methods.hpp"

#include <sinq/pack/pack.hpp>
#include <sinq/quant/codebook.hpp>
#include <sinq/quant/sinkhorn_quantizer.hpp>

#include <cmath>
#include <limits>
#include <set>

using namespace sinq_test;

namespace {

static_assert(sinq::quantizer<sinq::codebook_quantizer>);
static_assert(sinq::quantizer<sinq::nf4_quantizer>);
static_assert(sinq::quantizer<sinq::sinkhorn_quantizer<sinq::nf3_quantizer>>);

sinq::codebook made(const std::vector<float>& levels) {
  auto book = sinq::codebook::make(levels);
  if (!book) FAIL(book.error().message);
  return *std::move(book);
}

/// nf4, nf3 and one of each width.
std::vector<sinq::codebook> every_book() {
  std::vector<sinq::codebook> books{sinq::codebook::nf4(), sinq::codebook::nf3()};
  for (const int bits : sinq::supported_bits) books.push_back(made(some_levels(bits)));
  return books;
}

/// The first of the levels that are nearest to a place: the reference's argmin.
std::size_t first_nearest(std::span<const float> levels, double place) {
  std::size_t best = 0;
  for (std::size_t k = 1; k < levels.size(); ++k)
    if (std::fabs(place - double{levels[k]}) < std::fabs(place - double{levels[best]})) best = k;
  return best;
}

} // namespace

TEST_CASE("codes are those of the nearest level, the lower one of two") {
  for (const sinq::codebook& book : every_book()) {
    const sinq::codebook_quantizer quantize{book};
    std::vector<float> places;
    for (std::size_t k = 0; k < book.levels.size(); ++k) {
      places.push_back(book.levels[k]);
      if (k + 1 == book.levels.size()) continue;
      const auto middle = static_cast<float>((double{book.levels[k]} + double{book.levels[k + 1]}) / 2);
      for (const float place : {std::nextafter(middle, -9.0f), middle, std::nextafter(middle, 9.0f)})
        places.push_back(place);
    }
    for (const float far : {-1e6f, -3.0f, 3.0f, 1e6f}) places.push_back(far);
    std::vector<std::uint8_t> codes(places.size());
    quantize.assign(places, {1.0f, 0.0f}, codes);
    for (std::size_t n = 0; n < places.size(); ++n) {
      INFO(book.bits << " bits at " << places[n]);
      CHECK(codes[n] == first_nearest(book.levels, double{places[n]}));
    }
  }
}

TEST_CASE("positions at and beside every border are found alike on every instruction set") {
  for (const sinq::codebook& book : every_book()) {
    const sinq::detail::codebook_grid grid{book.levels};
    std::vector<float> positions{-9, 9, book.levels.front(), book.levels.back()};
    for (std::size_t n = 0; n + 1 < grid.count; ++n)
      for (const float towards : {-9.0f, grid.border[n], 9.0f})
        positions.push_back(std::nextafter(grid.border[n], towards));
    while (positions.size() % 16 != 0) positions.push_back(0);
    for (const sinq::isa id : isas_here()) {
      const on_isa on{id};
      INFO(to_string(id) << ", " << grid.count << " levels");
      std::vector<std::uint8_t> codes(positions.size());
      sinq::codebook_quantizer{book}.assign(positions, {1.0f, 0.0f}, codes);
      for (std::size_t n = 0; n < positions.size(); ++n) {
        INFO(positions[n]);
        CHECK(codes[n] == grid.code(positions[n]));
      }
    }
  }
}

TEST_CASE("levels that share a cell are told apart") {
  const sinq::codebook book = made({-1, -0.5f, 0.25f, 0.2500001f, 0.2500002f, 0.5f, 0.75f, 1});
  std::vector<float> twice;
  for (int n = 0; n < 2; ++n) twice.insert(twice.end(), book.levels.begin(), book.levels.end());
  for (const sinq::isa id : isas_here()) {
    const on_isa on{id};
    std::vector<std::uint8_t> codes(16);
    sinq::codebook_quantizer{book}.assign(twice, {1.0f, 0.0f}, codes);
    for (std::size_t n = 0; n < codes.size(); ++n) CHECK(codes[n] == n % 8);
  }
}

TEST_CASE("a group's levels just reach its smallest and largest weight") {
  const matrix m = with_outliers(20, 64, 31);
  for (const sinq::codebook& book : every_book())
    for (const auto shift : {sinq::codebook_shift::mean, sinq::codebook_shift::none}) {
      const sinq::codebook_quantizer quantize{book, {.group_size = 64, .shift = shift, .aux = sinq::aux_dtype::f32}};
      const auto q = quantize(m.view());
      REQUIRE(q);
      CHECK(q->format.has_zero == (shift == sinq::codebook_shift::mean));
      for (std::size_t i = 0; i < m.rows; ++i) {
        const auto row = m.view().row(i);
        double mean = 0;
        for (const float w : row) mean += double{w} / 64;
        if (shift == sinq::codebook_shift::none) mean = 0;
        const auto [low, high] = std::minmax_element(row.begin(), row.end());
        const double above = (double{*high} - mean) / double{book.levels.back()};
        const double below = (double{*low} - mean) / double{book.levels.front()};
        CHECK(q->scale[i] == Approx(std::max(above, below)).epsilon(1e-6));
        if (q->format.has_zero) CHECK(q->zero[i] == Approx(-mean / double{q->scale[i]}).margin(1e-6));
        const auto codes = q->code_matrix().row(i);
        CHECK(codes[static_cast<std::size_t>((above > below ? high : low) - row.begin())] ==
              (above > below ? sinq::max_code(book.bits) : 0));
      }
    }
}

TEST_CASE("groups of zeros, constant groups and groups far from zero are kept by every codebook") {
  for (const sinq::codebook& book : every_book())
    for (const auto shift : {sinq::codebook_shift::mean, sinq::codebook_shift::none})
      for (const sinq::aux_dtype aux : {sinq::aux_dtype::f16, sinq::aux_dtype::bf16, sinq::aux_dtype::f32}) {
        const sinq::codebook_quantizer quantize{book, {.group_size = 8, .shift = shift, .aux = aux}};
        for (const float constant : {0.0f, 5.0f, -0.37f, 1e-30f, -3e30f, std::numeric_limits<float>::max()}) {
          matrix m{2, 8, constant};
          m(1, 3) *= 1 - 0x1p-20f;
          const auto q = quantize(m.view());
          REQUIRE(q);
          INFO(book.bits << " bits, " << constant);
          const double step = double{q->scale[1]} * widest_gap(book.levels) / 2;
          for (std::size_t j = 0; j < 8; ++j)
            CHECK(std::fabs(value_of_code(*q, 1, j) - double{m(1, j)}) <= step + std::fabs(double{constant}) * 1e-6);
          if (constant == 0) CHECK(value_of_code(*q, 0, 0) == 0);
          if (q->format.has_zero && aux == sinq::aux_dtype::f16) CHECK(std::fabs(q->zero[1]) <= 512);
          // a step of weights far from zero is as coarse as a stored zero point makes it, and no coarser
          if (shift == sinq::codebook_shift::mean && aux == sinq::aux_dtype::f16)
            CHECK(step <= std::fabs(double{constant}) / 128 + 1e-4);
          REQUIRE(sinq::pack(*q));
        }
      }
}

TEST_CASE("small weights use every level") {
  const matrix m = gaussian(64, 64, 33, 1e-8);
  const auto q = sinq::nf4_quantizer{}(m.view());
  REQUIRE(q);
  CHECK(std::set<std::uint8_t>(q->codes.begin(), q->codes.end()).size() == 16);
}

TEST_CASE("codebooks that cannot be used are refused, naming the values") {
  const auto refused = [](std::vector<float> levels, std::string_view says) {
    const auto book = sinq::codebook::make(levels);
    REQUIRE_FALSE(book);
    INFO(book.error().message);
    CHECK(book.error().code == sinq::errc::invalid_argument);
    CHECK(book.error().message.find(says) != std::string::npos);
  };
  refused({}, "0 levels");
  refused({-1, 0, 1}, "3 levels");
  refused(std::vector<float>(128), "128 levels");
  refused({-1, 0, 0, 1}, "level 2 is 0 after 0");
  refused({-1, 1, 0.5f, 2}, "level 2 is 0.5 after 1");
  refused({-1, 0, 1, std::numeric_limits<float>::infinity()}, "level 3 is inf");
  refused({-1, std::nanf(""), 1, 2}, "level 1 is nan");
  refused({0, 1, 2, 3}, "from 0 to 3, expected both sides of 0");
  refused({-4, -3, -2, -1}, "expected both sides of 0");
  refused({-200, 0, 1, 2}, "magnitude of a level is 200");
  refused({-1e-3f, 0, 1e-4f, 2e-4f}, "magnitude");
  CHECK(made({-128, 0, 1, 2}).bits == 2);
}

TEST_CASE("a codebook quantizer refuses an empty matrix and empty groups") {
  const auto empty = sinq::nf4_quantizer{}(sinq::matrix_view<const float>{});
  REQUIRE_FALSE(empty);
  CHECK(empty.error().code == sinq::errc::empty_matrix);
  const auto no_group = sinq::nf3_quantizer{{.group_size = 0}}(gaussian(2, 2, 1).view());
  REQUIRE_FALSE(no_group);
  CHECK(no_group.error().code == sinq::errc::invalid_argument);
}
