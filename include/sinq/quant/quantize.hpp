#pragma once

#include "finish.hpp"
#include "methods.hpp"
#include "official.hpp"
#include "options.hpp"

#include <array>
#include <optional>
#include <string_view>

namespace sinq {

/// One line of the method table.
struct method_info {
  method id;
  std::string_view name;      ///< as the tool and the checkpoint spell it
  std::string_view summary;   ///< one phrase for people
  bool has_col_scale = false; ///< makes a t
  int bits = 0;               ///< the only width it has; 0: any
  bool needs_inputs = false;  ///< fails without quantize_options::inputs
  bool needs_levels = false;  ///< fails without quantize_options::levels
  bool needs_zero = false;    ///< has no symmetric form: always stores zero points
  bool rotates = false;       ///< rotates blocks of columns
  bool feedback = false;      ///< chooses codes by error feedback: needs a hessian, or a sample of inputs
  sinq::grid grid = sinq::grid::uniform;
};

namespace detail {

/// A method and what stands behind it.
struct method_entry {
  method_info info;
  quantize_function* quantize;
};

/// All methods, in the order of the enumeration.
inline constexpr std::array method_entries{
    method_entry{{.id = method::rtn, .name = "rtn", .summary = "round to nearest"}, detail::quantize_rtn<false>},
    method_entry{{.id = method::sinq,
                  .name = "sinq",
                  .summary = "Sinkhorn normalisation, then round to nearest",
                  .has_col_scale = true},
                 detail::quantize_rtn<true>},
    method_entry{{.id = method::nf4, .name = "nf4", .summary = "NormalFloat4", .bits = 4, .grid = grid::nf4},
                 detail::quantize_codebook<false, codebook::nf4>},
    method_entry{{.id = method::nf3, .name = "nf3", .summary = "NormalFloat3", .bits = 3, .grid = grid::nf3},
                 detail::quantize_codebook<false, codebook::nf3>},
    method_entry{{.id = method::codebook,
                  .name = "codebook",
                  .summary = "the nearest of given levels",
                  .needs_levels = true,
                  .grid = grid::custom},
                 detail::quantize_custom<false>},
    method_entry{{.id = method::hqq, .name = "hqq", .summary = "half-quadratic quantization", .needs_zero = true},
                 detail::quantize_hqq},
    method_entry{{.id = method::hadamard_rtn,
                  .name = "hadamard_rtn",
                  .summary = "Walsh-Hadamard rotation, then round to nearest",
                  .rotates = true},
                 detail::quantize_hadamard_rtn},
    method_entry{{.id = method::sinq_nf4,
                  .name = "sinq_nf4",
                  .summary = "Sinkhorn normalisation, then NormalFloat4",
                  .has_col_scale = true,
                  .bits = 4,
                  .grid = grid::nf4},
                 detail::quantize_codebook<true, codebook::nf4>},
    method_entry{{.id = method::sinq_nf3,
                  .name = "sinq_nf3",
                  .summary = "Sinkhorn normalisation, then NormalFloat3",
                  .has_col_scale = true,
                  .bits = 3,
                  .grid = grid::nf3},
                 detail::quantize_codebook<true, codebook::nf3>},
    method_entry{{.id = method::sinq_codebook,
                  .name = "sinq_codebook",
                  .summary = "Sinkhorn normalisation, then the nearest of given levels",
                  .has_col_scale = true,
                  .needs_levels = true,
                  .grid = grid::custom},
                 detail::quantize_custom<true>},
    method_entry{{.id = method::sinq_hqq,
                  .name = "sinq_hqq",
                  .summary = "Sinkhorn normalisation, then half-quadratic quantization",
                  .has_col_scale = true,
                  .needs_zero = true},
                 detail::quantize_sinq_hqq},
    method_entry{{.id = method::sinq_noz,
                  .name = "sinq_noz",
                  .summary = "Sinkhorn normalisation, then the reference's symmetric grid",
                  .has_col_scale = true,
                  .needs_zero = true},
                 detail::quantize_sinq_noz},
    method_entry{{.id = method::awq,
                  .name = "awq",
                  .summary = "activation-aware column factors, then round to nearest",
                  .has_col_scale = true,
                  .needs_inputs = true},
                 detail::quantize_awq<false, output_loss::squared>},
    method_entry{{.id = method::asinq,
                  .name = "asinq",
                  .summary = "Sinkhorn normalisation, then AWQ",
                  .has_col_scale = true,
                  .needs_inputs = true},
                 detail::quantize_awq<true, output_loss::squared>},
    method_entry{{.id = method::asinq_l1,
                  .name = "asinq_l1",
                  .summary = "Sinkhorn normalisation, then AWQ for the absolute error",
                  .has_col_scale = true,
                  .needs_inputs = true},
                 detail::quantize_awq<true, output_loss::absolute>},
    method_entry{{.id = method::gptq,
                  .name = "gptq",
                  .summary = "round to nearest with error feedback",
                  .needs_inputs = true,
                  .feedback = true},
                 detail::quantize_rtn<false>},
    method_entry{{.id = method::sinq_gptq,
                  .name = "sinq_gptq",
                  .summary = "Sinkhorn normalisation, then round to nearest with error feedback",
                  .has_col_scale = true,
                  .needs_inputs = true,
                  .feedback = true},
                 detail::quantize_rtn<true>},
    method_entry{{.id = method::hadamard_gptq,
                  .name = "hadamard_gptq",
                  .summary = "Walsh-Hadamard rotation, then round to nearest with error feedback",
                  .needs_inputs = true,
                  .rotates = true,
                  .feedback = true},
                 detail::quantize_hadamard_rtn},
};

} // namespace detail

/// All methods, in the order of the enumeration.
inline constexpr auto method_table = [] {
  std::array<method_info, detail::method_entries.size()> infos{};
  for (std::size_t n = 0; n < infos.size(); ++n) infos[n] = detail::method_entries[n].info;
  return infos;
}();

[[nodiscard]] constexpr const method_info& info(method id) {
  return method_table[static_cast<std::size_t>(id)];
}
[[nodiscard]] constexpr std::string_view to_string(method id) {
  return info(id).name;
}

/// The method of that name, if there is one.
[[nodiscard]] constexpr std::optional<method> parse_method(std::string_view name) {
  for (const method_info& entry : method_table)
    if (entry.name == name) return entry.id;
  return std::nullopt;
}

/// Format of what `quantize` makes of a matrix of that shape, before scales and zero points are quantized.
/// @pre the options are valid
[[nodiscard]] inline matrix_format result_format(const quantize_options& options, std::size_t rows, std::size_t cols) {
  const method_info& chosen = info(options.method);
  matrix_format format = options.format(rows, cols, chosen.has_col_scale);
  format.grid = chosen.grid;
  if (options.compat == compat::official)
    if (const auto size = detail::official_group_size(options.group_size, cols)) format.group_size = *size;
  if (chosen.grid != grid::uniform) format.has_zero = options.codebook().shift == codebook_shift::mean;
  if (chosen.needs_zero) format.has_zero = true;
  if (const std::size_t block = hadamard_block(cols); chosen.rotates && block > 1) format.rotation = block;
  return format;
}

/// Format of what `quantize` makes of a matrix of that shape, short of surprises in its values: what does not fit f16
/// or F8_E4M3 adds or widens t. @pre options.bits is supported
[[nodiscard]] inline matrix_format planned_format(const quantize_options& options, std::size_t rows, std::size_t cols) {
  return detail::finished_format(result_format(options, rows, cols), options);
}

/// Whether a method can run with these options, whatever the matrix; inputs are not looked at.
/// @errors  errc::invalid_argument (names the option, its value and what was expected)
[[nodiscard]] inline result<void> check_options(const quantize_options& options) {
  if (!is_supported_bits(options.bits))
    return make_error(errc::invalid_argument, "bits is ", options.bits, ", expected 2, 3, 4, 5, 6 or 8");
  const method_info& chosen = info(options.method);
  if (chosen.bits != 0 && options.bits != chosen.bits)
    return make_error(errc::invalid_argument, "bits is ", options.bits, ", expected ", chosen.bits,
                      ", the only width of ", chosen.name);
  if (chosen.needs_zero && options.symmetric)
    return make_error(errc::invalid_argument, chosen.name, " stores zero points, and symmetric says that none are");
  if (options.compat == compat::official)
    if (result<void> ok = detail::check_compat(options); !ok) return ok;
  if (!chosen.needs_levels) return {};
  const std::size_t expected = static_cast<std::size_t>(max_code(options.bits)) + 1;
  if (options.levels.size() != expected)
    return make_error(errc::invalid_argument, options.levels.size(), " levels for ", chosen.name, " of ", options.bits,
                      " bits, expected ", expected);
  if (const result<codebook> book = codebook::make(options.levels); !book) return book.error();
  return {};
}

namespace detail {

/// Whether nothing changes the codes that a method has made: they may go to a sink. @pre the options are valid
[[nodiscard]] inline bool codes_are_final(const quantize_options& options, std::size_t rows, std::size_t cols) {
  return !info(options.method).feedback && options.compat == compat::none &&
         !needs_fit(planned_format(options, rows, cols), options);
}

/// What quantize does. A template, so that it can be compiled in one place.
/// @param sink  takes codes, scales and zero points instead of the result, whose codes are then empty, where the method
///              can do so; null unless codes_are_final
template <class = void>
[[nodiscard]] result<quantized_matrix> run_method(const weight_view& w, const quantize_options& options,
                                                  block_sink* sink) {
  if (result<void> ok = check_isa(); !ok) return ok.error();
  if (result<void> ok = check_options(options); !ok) return ok.error();
  const method_entry& chosen = method_entries[static_cast<std::size_t>(options.method)];
  if (result<void> ok = check_quantizable(w, options.group_size); !ok) return ok.error();
  if (chosen.info.needs_inputs && options.inputs == nullptr)
    return make_error(errc::invalid_argument, chosen.info.name, " needs input moments, and none are given");
  if (options.inputs != nullptr)
    if (result<void> ok = options.inputs->check(w.cols()); !ok) return ok.error();
  if (options.compat == compat::official) return quantize_official(w, options);
  result<quantized_matrix> q = chosen.quantize(w, options, result_format(options, w.rows(), w.cols()), sink);
  if (q) q->method = chosen.info.name;
  return finish(w, options, chosen.info.feedback, std::move(q));
}

#ifdef SINQ_SEPARATE_COMPILATION
extern template result<quantized_matrix> run_method<void>(const weight_view&, const quantize_options&, block_sink*);
#endif

} // namespace detail

/// Quantizes a weight matrix: the one door over all methods.
/// @param w  [N x K] row-major of any floating type, finite; borrowed for the call
/// @errors   errc::empty_matrix, errc::non_finite (names the first row and column), errc::invalid_argument (as
///           check_options, and inputs that are missing or of another K), errc::cancelled, those of check_isa and of
///           the method
/// The result does not depend on the number of threads, nor, but for error feedback, on the instruction set.
/// See the method's own class for equation and numerics.
/// Compiling it takes a compiler some 20 seconds. A program of many units compiles it once by defining
/// SINQ_SEPARATE_COMPILATION in all of them and including sinq/compile.hpp in one.
[[nodiscard]] inline result<quantized_matrix> quantize(const weight_view& w, const quantize_options& options = {}) {
  return detail::run_method<>(w, options, nullptr);
}

} // namespace sinq
