#include "command.hpp"
#include "model_files.hpp"
#include "signals.hpp"

#include <sinq/pack/pack.hpp>

#include <nlohmann/json.hpp>

#include <memory>

namespace sinq_cli {

namespace {

namespace io = sinq::io;
using sinq::errc;
using sinq::make_error;
using sinq::result;

struct dump_flags {
  std::string input, output;
  bool quiet = false;
};

template <class T>
result<void> add(io::model_writer& to, const std::string& name, sinq::dtype type, const std::vector<std::size_t>& shape,
                 std::span<const T> values) {
  return to.add(name, type, shape, std::as_bytes(values), 1);
}

/// NAME.scale, NAME.zero, NAME.t and NAME.levels, in F32.
result<void> write_auxiliaries(const std::string& name, const sinq::packed_matrix& p, io::model_writer& to) {
  const sinq::matrix_format& f = p.format;
  const std::size_t groups = f.groups();
  std::vector<float> scale(f.rows * groups);
  std::vector<float> zero(f.rows * groups);
  for (std::size_t i = 0; i < f.rows; ++i)
    sinq::load_auxiliaries(p, i, std::span{scale}.subspan(i * groups, groups),
                           std::span{zero}.subspan(i * groups, groups));
  std::vector<float> t(f.row_tiles() * f.cols, 1.0f);
  if (f.has_col_scale) sinq::load_floats(p.col_scale.data(), f.col_scale_type, t);
  const auto f32 = [&](const char* suffix, const std::vector<std::size_t>& shape, std::span<const float> values) {
    return add(to, name + suffix, sinq::dtype::f32, shape, values);
  };
  if (auto done = f32(".scale", {f.rows, groups}, scale); !done) return done;
  if (auto done = f32(".zero", {f.rows, groups}, zero); !done) return done;
  const std::vector<std::size_t> t_shape =
      f.row_tiles() == 1 ? std::vector{f.cols} : std::vector{f.row_tiles(), f.cols};
  if (auto done = f32(".t", t_shape, t); !done) return done;
  if (f.grid == sinq::grid::uniform) return {};
  const std::vector<float> custom = sinq::custom_levels(p.levels);
  const std::span<const float> levels = sinq::levels(f, custom);
  return f32(".levels", {levels.size()}, levels);
}

/// NAME.codes, one byte a code.
result<void> write_codes(const std::string& name, const sinq::packed_matrix& p, io::model_writer& to) {
  const std::vector<std::size_t> shape{p.format.rows, p.format.cols};
  if (auto done = to.begin(name + ".codes", sinq::dtype::u8, shape, 1); !done) return done;
  std::vector<std::uint8_t> codes(p.format.cols);
  for (std::size_t i = 0; i < p.format.rows; ++i) {
    sinq::with_layout(p.format.bits, [&](auto layout) { layout.unpack_row(p.code_row(i), codes); });
    if (auto done = to.append(std::as_bytes(std::span{codes})); !done) return done;
  }
  return to.end();
}

std::string describe(const sinq::matrix_format& f, const std::string& method, sinq::dtype original) {
  return nlohmann::json{{"method", method},           {"bits", f.bits},
                        {"group_size", f.group_size}, {"aux_dtype", to_string(storage(f.aux))},
                        {"symmetric", !f.has_zero},   {"dtype", to_string(original)},
                        {"tile_rows", f.tile_rows},   {"rotation", f.rotation}}
      .dump();
}

result<void> run(const dump_flags& f) {
  const auto input = io::checkpoint::open(f.input);
  if (!input) return input.error();
  if (!input->is_quantized()) return make_error(errc::invalid_argument, f.input, ": has no quantized tensors to dump");
  if (auto differs = check_output(input->model(), f.output); !differs) return differs;
  auto writer = io::model_writer::create_file(f.output);
  if (!writer) return std::move(writer).error();
  double total = 0;
  for (const io::checkpoint_tensor& tensor : input->tensors())
    if (tensor.quantized) {
      const sinq::matrix_format& format = input->format(tensor);
      total += static_cast<double>(packed_bytes(format).total());
      auto done = writer->set_metadata(tensor.name, describe(format, input->method(tensor), tensor.type));
      if (!done) return done;
    }
  progress_bar progress{total, f.quiet};
  // F32 first, then U8: without padding every tensor is aligned to its type, which PyTorch's reader needs
  for (const bool codes : {false, true})
    for (const io::checkpoint_tensor& tensor : input->tensors()) {
      if (auto on = check_goes_on(); !on) return on;
      if (!tensor.quantized) continue;
      const sinq::packed_matrix& p = input->packed(tensor);
      const std::size_t bytes = codes ? p.codes.size() : p.size_bytes() - p.codes.size();
      progress.begin(tensor.name, bytes, static_cast<double>(bytes));
      auto done = codes ? write_codes(tensor.name, p, *writer) : write_auxiliaries(tensor.name, p, *writer);
      if (!done) return of_tensor(std::move(done).error(), file_of(*input, tensor.name), tensor.name);
      input->release(tensor);
    }
  return writer->commit();
}

} // namespace

command add_dump(CLI::App& app) {
  const auto f = std::make_shared<dump_flags>();
  CLI::App* const c = app.add_subcommand(
      "dump", "Write codes, scales, zero points and column scales of quantized tensors as plain tensors");
  c->add_option("IN", f->input, "What sinq quantize made")->required();
  c->add_option("-o,--output", f->output, "The .safetensors file to write")->required();
  c->add_flag("--quiet", f->quiet, "Print nothing but errors");
  c->footer("A weight is W[i][j] = scale[i][j / group_size] * (codes[i][j] - zero[i][j / group_size]) * t[j].\n"
            "For each quantized tensor NAME, of shape [N, K] with G = ceil(K / group_size):\n"
            "  NAME.codes [N, K] U8, NAME.scale [N, G] F32, NAME.zero [N, G] F32, NAME.t [K] F32\n"
            "and in __metadata__, under NAME, its method, bits and group size as JSON.\n"
            "Tiles of tile_rows rows have a row of t each, [ceil(N / tile_rows), K]. With NAME.levels (nf4, nf3 and\n"
            "custom grids) take levels[codes] for codes. With rotation B the rows found so are still rotated by the\n"
            "orthonormal Walsh-Hadamard matrix in blocks of B columns.");
  return {c, [f] { return run(*f); }};
}

} // namespace sinq_cli
