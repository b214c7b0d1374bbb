#include "kernels/product_check.hpp"
#include "support/sampled.hpp"

#include <array>
#include <iostream>

using namespace sinq_test;

namespace {

/// A shape that fits no panel, block or group, and what it is tested with.
struct ragged_shape {
  std::size_t rows, cols;
  std::size_t tile_rows; ///< of 2D tiles, or 0: one tile is enough
  bool every_storage;    ///< whether also with scales and zero points in codes, and rotated
};
/// A panel and some rows; three panels, and more columns than tiles of AMX take at once; one panel; one row.
constexpr std::array shapes{ragged_shape{19, 100, 10, true}, ragged_shape{37, 264, 20, false},
                            ragged_shape{16, 72, 0, false}, ragged_shape{1, 77, 0, false}};

/// Every grid of that width, with zero points and, if it has a middle, without.
std::vector<sinq::matrix_format> grids(int bits) {
  std::vector<sinq::matrix_format> formats;
  for (const bool has_zero : {true, false}) {
    formats.push_back({.bits = bits, .grid = sinq::grid::uniform, .has_zero = has_zero});
    if (bits == 4) formats.push_back({.bits = bits, .grid = sinq::grid::nf4, .has_zero = has_zero});
    if (bits == 3) formats.push_back({.bits = bits, .grid = sinq::grid::nf3, .has_zero = has_zero});
  }
  formats.push_back({.bits = bits, .grid = sinq::grid::custom});
  return formats;
}

/// How scales and zero points are stored, and how long the blocks are that are rotated.
struct storage_of_test {
  int scale_bits, zero_bits;
  std::size_t rotation;
};
std::vector<storage_of_test> storages(const ragged_shape& shape) {
  if (!shape.every_storage) return {{0, 0, 0}};
  const std::size_t block = sinq::hadamard_block(shape.cols);
  return {{0, 0, 0}, {6, 4, 0}, {0, 0, block}, {6, 4, block}};
}

/// Every format of that width and shape.
std::vector<sinq::matrix_format> every_format(int bits, const ragged_shape& shape) {
  std::vector<sinq::matrix_format> formats;
  for (sinq::matrix_format f : grids(bits))
    for (const std::size_t group_size :
         {std::size_t{16}, std::size_t{29}, std::size_t{32}, std::size_t{64}, std::size_t{128}, shape.cols})
      for (const storage_of_test& stored : storages(shape)) {
        f.rows = shape.rows, f.cols = shape.cols, f.group_size = group_size, f.has_col_scale = true;
        f.scale_bits = stored.scale_bits, f.zero_bits = f.has_zero ? stored.zero_bits : 0;
        f.super_group = stored.scale_bits == 0 ? 0 : 2, f.rotation = stored.rotation;
        f.tile_rows = 0;
        formats.push_back(f);
        if (shape.tile_rows == 0) continue;
        f.tile_rows = shape.tile_rows;
        formats.push_back(f);
      }
  return formats;
}

void check_every_product(int bits) {
  std::size_t formats = 0, compared = 0;
  for (const ragged_shape& shape : shapes) {
    product_check check{shape.cols, {1, 2, 3, 4, 5, 8, 15, 16, 17, 64, 65, 512}};
    const std::vector<sinq::matrix_format> all = every_format(bits, shape);
    for (std::size_t n = static_cast<std::size_t>(bits) % sampled::stride; n < all.size();
         n += sampled::stride, ++formats)
      check(all[n]);
    compared += check.compared();
  }
  std::cout << bits << " bits: " << compared << " products of " << formats << " formats";
  for (const sinq::isa_info& entry : sinq::isa_table)
    if (!entry.is_here()) std::cout << ", not on " << entry.name;
  if (sampled::stride > 1) std::cout << ", one in " << sampled::stride << " of all formats (SINQ_TEST_STRIDE)";
  std::cout << std::endl;
}

} // namespace

TEST_CASE("every product of 2 bits is what its definition says") {
  check_every_product(2);
}
TEST_CASE("every product of 3 bits is what its definition says") {
  check_every_product(3);
}
TEST_CASE("every product of 4 bits is what its definition says") {
  check_every_product(4);
}
TEST_CASE("every product of 5 bits is what its definition says") {
  check_every_product(5);
}
TEST_CASE("every product of 6 bits is what its definition says") {
  check_every_product(6);
}
TEST_CASE("every product of 8 bits is what its definition says") {
  check_every_product(8);
}
