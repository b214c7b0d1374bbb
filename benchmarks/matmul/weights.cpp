#include "weights.hpp"

#include "support/random_quantized.hpp"

#include <sinq/quant/presets.hpp>
#include <sinq/quant/quantize.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace sinq_bench {

sinq::matrix_format weight_choice::format() const {
  sinq::quantize_options options{.method = grid == sinq::grid::nf4 ? sinq::method::sinq_nf4 : sinq::method::sinq,
                                 .bits = bits,
                                 .group_size = group_size};
  if (const auto preset = sinq::parse_preset(aux)) options = (*preset)(options);
  return sinq::planned_format(options, rows, cols);
}

namespace {

/// Puts the parts of panels into memory, one after the other on cache lines.
class mover {
public:
  explicit mover(const huge_memory& memory) : memory_{memory} {}

  void operator()(sinq::shared_bytes& part) {
    const std::span<sinq::byte> to = memory_.span().subspan(used_, part.size());
    if (!part.empty()) std::memcpy(to.data(), part.data(), part.size());
    used_ +=
        (part.size() + sinq::buffer_alignment_bytes - 1) / sinq::buffer_alignment_bytes * sinq::buffer_alignment_bytes;
    part = sinq::shared_bytes{to, memory_.owner()};
  }

private:
  huge_memory memory_;
  std::size_t used_ = 0;
};

/// The same panels in huge pages of their own.
sinq::panel_matrix moved(const sinq::panel_matrix& from) {
  constexpr std::size_t parts = 7;
  sinq::panel_matrix w = from;
  mover move{huge_memory{from.size_bytes() + parts * sinq::buffer_alignment_bytes}};
  for (sinq::shared_bytes* part : {&w.codes, &w.scale, &w.zero, &w.col_scale, &w.scale_base, &w.zero_base, &w.levels})
    move(*part);
  return w;
}

std::string name_of(const weight_choice& choice, const sinq::matrix_format& f, std::size_t bytes) {
  const double weights = static_cast<double>(f.rows * f.cols);
  return fmt::format("{} g{} {}, {:.2f} bits", f.grid == sinq::grid::nf4 ? "nf4" : fmt::format("{}-bit", f.bits),
                     f.group_size, f.scale_bits == 0 ? choice.aux : fmt::format("aux{}", f.scale_bits),
                     8 * static_cast<double>(bytes) / weights);
}

} // namespace

sinq::result<weight_set> make_weights(const weight_choice& choice, std::size_t bytes) {
  const sinq::matrix_format f = choice.format();
  auto packed = sinq::pack(sinq_test::random_quantized(f, 1));
  if (!packed) return std::move(packed).error();
  const auto first = sinq::to_panels(*packed);
  if (!first) return first.error();
  weight_set set{name_of(choice, f, first->size_bytes()), *std::move(packed), {}};
  for (std::size_t n = matrices_in(bytes, first->size_bytes()); n != 0; --n) set.panels.push_back(moved(*first));
  return set;
}

contender ours(const weight_set& weights, sinq::precision precision, const tokens_io& io, pools& threads,
               std::shared_ptr<const expected_rows> expected) {
  const bool bytes = precision == sinq::precision::int8;
  const auto turn = std::make_shared<rotation>(weights.panels.size());
  const auto multiply = [&weights, precision, io, &threads, turn](std::size_t tokens, std::size_t count) {
    const auto done =
        sinq::matmul(weights.panels[turn->next()], io.x.block(0, 0, tokens, io.x.cols()),
                     io.y.block(0, 0, tokens, io.y.cols()), {.precision = precision, .threads = &threads.of(count)});
    if (!done) throw std::runtime_error{done.error().message};
  };
  contender c{.name = bytes ? "sinq int8" : "sinq exact",
              .weights = weights.name,
              .weight_bytes = static_cast<double>(weights.panels.front().size_bytes()),
              .kind = bytes ? arithmetic::int8 : arithmetic::f32,
              .worst_error = bytes ? 0.06 : 1e-4,
              .expected = std::move(expected),
              .multiply = multiply};
#if SINQ_AMX
  if (bytes && sinq::current_isa() == sinq::isa::amx)
    c.fewest_bf16_tokens =
        sinq::detail::amx::fewest_bf16_tokens(sinq::detail::int8_step(weights.panels.front().format));
#endif
  return c;
}

} // namespace sinq_bench
