#include "support/catch.hpp"
#include "support/each_isa.hpp"
#include "support/methods.hpp"

#include <sinq/math/sinkhorn.hpp>
#include <sinq/quant/quantize.hpp>

using namespace sinq_test;

namespace {

void check_same_everywhere(const sinq::weight_view& w, const sinq::quantize_options& options) {
  std::optional<sinq::quantized_matrix> first;
  for (const sinq::isa id : isas_here()) {
    const on_isa on{id};
    INFO(to_string(id));
    auto q = sinq::quantize(w, options);
    REQUIRE(q);
    if (!first)
      first = *std::move(q);
    else
      CHECK(same_result(*first, *q));
  }
}

} // namespace

TEST_CASE("the comparison of results sees a code and the last bit of a scale") {
  const matrix m = gaussian(5, 70, 1);
  const auto q = sinq::quantize(m.view());
  REQUIRE(q);
  const auto changed = [&](auto&& change) {
    auto other = sinq::quantize(m.view());
    change(*other);
    return !same_result(*q, *other);
  };
  CHECK(changed([](sinq::quantized_matrix& o) { o.codes.data()[69] ^= 1; }));
  CHECK(changed([](sinq::quantized_matrix& o) { o.scale[3] = std::nextafter(o.scale[3], 9.0f); }));
  CHECK(changed([](sinq::quantized_matrix& o) { o.col_scale[11] = std::nextafter(o.col_scale[11], 9.0f); }));
  CHECK_FALSE(changed([](sinq::quantized_matrix&) {}));
}

TEST_CASE("every method gives the same bits on every instruction set") {
  for (const auto& [rows, cols] : {std::pair<std::size_t, std::size_t>{37, 100}, {18, 64}, {1, 67}})
    for (const sinq::method_info& method : sinq::method_table) {
      if (method.feedback) continue; // corrections are Eigen's, whose order of sums is that of the compiler's flags
      const method_runs runs{cols};
      for (const named_matrix& kind : every_kind(rows, cols, 21)) {
        INFO(method.name << " " << kind.name << " " << rows << " x " << cols);
        sinq::quantize_options options = runs.usual(method);
        check_same_everywhere(kind.m.view(), options);
        options.refine = sinq::refine_mode::none;
        for (const sinq::sinkhorn_rule rule : {sinq::sinkhorn_rule::alternating, sinq::sinkhorn_rule::reference}) {
          if (!method.has_col_scale) break;
          options.sinkhorn.rule = rule;
          check_same_everywhere(kind.m.view(), options);
        }
        options.refine = sinq::refine_mode::weights;
        options.scale_bits = options.zero_bits = 6;
        check_same_everywhere(kind.m.view(), options);
      }
    }
}

TEST_CASE("every width gives the same bits on every instruction set") {
  const matrix m = with_outliers(50, 300, 4);
  for (const int bits : sinq::supported_bits)
    for (const std::size_t group_size : {16u, 64u, 100u})
      for (const sinq::refine_mode mode : {sinq::refine_mode::none, sinq::refine_mode::weights})
        check_same_everywhere(m.view(), {.bits = bits, .group_size = group_size, .refine = mode});
}

TEST_CASE("tall tiles are balanced to the same bits on every instruction set") {
  for (const std::size_t rows : {511u, 512u, 700u, 1300u})
    check_same_everywhere(with_outliers(rows, 70, 5).view(), {.refine = sinq::refine_mode::none});
}

TEST_CASE("Sinkhorn scales in double are the same bits on every instruction set") {
  std::vector<double> values;
  for (const float value : with_outliers(33, 70, 8).values) values.push_back(double{value} * 1.0000000001);
  for (const sinq::sinkhorn_rule rule : {sinq::sinkhorn_rule::alternating, sinq::sinkhorn_rule::reference}) {
    std::vector<double> first;
    for (const sinq::isa id : isas_here()) {
      const on_isa on{id};
      const auto n = sinq::sinkhorn_normalizer<double>{{.rule = rule}}({values.data(), 33, 70});
      REQUIRE(n);
      if (first.empty()) first = n->values;
      CHECK(first == n->values);
    }
  }
}
