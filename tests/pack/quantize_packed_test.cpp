#include "support/catch.hpp"
#include "support/each_isa.hpp"
#include "support/methods.hpp"
#include "support/packed.hpp"
#include "support/sampled.hpp"

#include <sinq/pack/quantize_packed.hpp>

using namespace sinq_test;

namespace {

/// One door must give what the two steps give, or the same error.
void check_same_as_two_steps(const sinq::weight_view& w, const sinq::quantize_options& options) {
  const auto q = sinq::quantize(w, options);
  const auto packed = q ? sinq::pack(*q) : sinq::result<sinq::packed_matrix>{q.error()};
  const auto fused = sinq::quantize_packed(w, options);
  REQUIRE(packed.has_value() == fused.has_value());
  if (packed)
    CHECK(same_packed(*packed, *fused));
  else
    CHECK(packed.error().message == fused.error().message);
}

/// The matrix in another type, at an address that is aligned for none.
class stored_matrix {
public:
  stored_matrix(const matrix& m, sinq::dtype type)
      : type_{type}, rows_{m.rows}, cols_{m.cols}, bytes_(m.values.size() * size_bytes(type) + 1) {
    sinq::store_floats(m.values, type, bytes_.data() + 1);
  }
  [[nodiscard]] sinq::weight_view view() const { return {bytes_.data() + 1, type_, rows_, cols_}; }

private:
  sinq::dtype type_;
  std::size_t rows_, cols_;
  std::vector<sinq::byte> bytes_;
};

} // namespace

TEST_CASE("the comparison of packed matrices sees a byte of every part") {
  const matrix m = gaussian(5, 70, 1);
  const sinq::quantize_options options{.method = sinq::method::sinq_nf4};
  const auto p = sinq::quantize_packed(m.view(), options);
  REQUIRE(p);
  CHECK(same_packed(*p, *sinq::quantize_packed(m.view(), options)));
  for (const auto part : {&sinq::packed_matrix::codes, &sinq::packed_matrix::scale, &sinq::packed_matrix::zero,
                          &sinq::packed_matrix::col_scale}) {
    sinq::packed_matrix changed = *p;
    sinq::aligned_buffer<sinq::byte> bytes{(changed.*part).size()};
    std::copy((changed.*part).span().begin(), (changed.*part).span().end(), bytes.begin());
    bytes[bytes.size() - 1] ^= sinq::byte{1};
    changed.*part = sinq::shared_bytes{std::move(bytes)};
    CHECK_FALSE(same_packed(*p, changed));
  }
}

TEST_CASE("one door gives the bytes of the two steps for every method, width and kind of matrix") {
  sampled combinations;
  for (const auto& [rows, cols] : {std::pair<std::size_t, std::size_t>{37, 100}, {70, 64}, {1, 67}}) {
    const method_runs runs{cols};
    for (const sinq::method_info& method : sinq::method_table)
      for (const named_matrix& kind : every_kind(rows, cols, 31))
        for (const int bits : sinq::supported_bits)
          for (const bool symmetric : {false, true})
            if (const auto options = runs.find(method, bits, symmetric); options && combinations.take()) {
              INFO(method.name << " " << kind.name << " " << rows << " x " << cols << " " << bits << " bits");
              check_same_as_two_steps(kind.m.view(), *options);
            }
  }
}

TEST_CASE("one door gives the bytes of the two steps for every group size, tiling, storage and source type") {
  const matrix m = with_outliers(70, 200, 5);
  const method_runs runs{m.cols};
  for (const sinq::method id : {sinq::method::rtn, sinq::method::sinq, sinq::method::sinq_nf3, sinq::method::nf4})
    for (const std::size_t group_size : {1u, 12u, 32u, 64u, 300u})
      for (const sinq::aux_dtype aux : {sinq::aux_dtype::f16, sinq::aux_dtype::bf16, sinq::aux_dtype::f32}) {
        sinq::quantize_options options = runs.usual(sinq::info(id));
        options.group_size = group_size;
        options.aux = aux;
        INFO(sinq::to_string(id) << " groups of " << group_size);
        check_same_as_two_steps(m.view(), options);
        options.tile_rows = 32;
        check_same_as_two_steps(m.view(), options);
        options.scale_bits = 6;
        check_same_as_two_steps(m.view(), options);
      }
  for (const sinq::dtype type : {sinq::dtype::f64, sinq::dtype::f32, sinq::dtype::f16, sinq::dtype::bf16})
    for (const sinq::method id : {sinq::method::rtn, sinq::method::sinq, sinq::method::nf4})
      check_same_as_two_steps(stored_matrix{m, type}.view(), runs.usual(sinq::info(id)));
}

TEST_CASE("scales that f16 cannot hold, and weights that are not finite, are what the two steps make of them") {
  for (const float size : {1e-9f, 1e9f, 1e-38f, 1e37f})
    for (const sinq::method id : {sinq::method::rtn, sinq::method::sinq, sinq::method::nf4}) {
      matrix m = gaussian(40, 130, 6);
      for (float& value : m.values) value *= size;
      sinq::quantize_options options{.method = id};
      options.refine = sinq::refine_mode::none;
      check_same_as_two_steps(m.view(), options);
      m(7, 100) = std::numeric_limits<float>::quiet_NaN();
      check_same_as_two_steps(m.view(), options);
    }
}

TEST_CASE("one door gives the same bytes on every instruction set and for any number of threads") {
  const matrix m = with_outliers(150, 720, 7);
  const method_runs runs{m.cols};
  sinq::thread_pool two{2}, three{3};
  for (const sinq::method_info& method : sinq::method_table) {
    if (method.feedback) continue; // see tests/quant/isa_test.cpp
    sinq::quantize_options options = runs.usual(method);
    const auto expected = sinq::quantize_packed(m.view(), options);
    REQUIRE(expected);
    for (const sinq::isa id : isas_here())
      for (sinq::executor* const threads : {static_cast<sinq::executor*>(&two), static_cast<sinq::executor*>(&three)}) {
        const on_isa on{id};
        options.run.threads = threads;
        const auto p = sinq::quantize_packed(m.view(), options);
        REQUIRE(p);
        INFO(method.name << " " << to_string(id));
        CHECK(same_packed(*expected, *p));
      }
  }
}
