#include "command.hpp"
#include "model_files.hpp"
#include "quantizer_flags.hpp"
#include "signals.hpp"
#include "text.hpp"

#include <sinq/pack/pack.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <memory>

namespace sinq_cli {

namespace {

namespace io = sinq::io;
using sinq::errc;
using sinq::make_error;
using sinq::result;

struct dequantize_flags {
  std::string input, output, shard_size;
  std::string type; ///< of the weights that were quantized; empty: as the originals
  std::size_t threads = 0;
  bool quiet = false;
};

/// Writes some rows of the weights that p stands for as `type` to memory.
result<void> convert_rows(const sinq::packed_matrix& p, sinq::dtype type, std::size_t begin, std::size_t end,
                          sinq::byte* to) {
  const std::size_t cols = p.format.cols;
  std::vector<float> row(cols);
  std::vector<float> stored(cols);
  for (std::size_t i = begin; i < end; ++i, to += cols * size_bytes(type)) {
    sinq::dequantize_rows(p, i, {row.data(), 1, cols});
    sinq::store_floats(row, type, to);
    sinq::load_floats(to, type, stored);
    for (std::size_t j = 0; j < cols; ++j)
      if (!sinq::is_finite(row[j]) || !sinq::is_finite(stored[j]))
        return make_error(errc::not_representable, "the weight at row ", i, ", column ", j, " is ", row[j], ", which ",
                          to_string(type), " cannot hold");
  }
  return {};
}

/// Writes one quantized tensor as an ordinary one of that type, some rows at a time.
result<void> dequantize_tensor(const io::checkpoint_tensor& tensor, const sinq::packed_matrix& p, sinq::dtype type,
                               io::model_writer& to, sinq::executor& threads, progress_bar& progress) {
  constexpr std::size_t block_bytes = std::size_t{1} << 23;
  const std::size_t rows = p.format.rows;
  const std::size_t row_bytes = p.format.cols * size_bytes(type);
  const std::size_t block_rows = std::clamp<std::size_t>(block_bytes / row_bytes, 1, rows);
  const std::size_t grain = (block_rows + 31) / 32;
  sinq::aligned_buffer<sinq::byte> block{block_rows * row_bytes, sinq::aligned_buffer<sinq::byte>::uninitialized};
  progress.begin(tensor.name, rows * row_bytes, static_cast<double>(rows * row_bytes));
  if (auto done = to.begin(tensor.name, type, tensor.shape, 1); !done) return done;
  for (std::size_t i = 0; i < rows; i += block_rows) {
    const std::size_t count = std::min(block_rows, rows - i);
    const auto convert = [&](std::size_t begin, std::size_t end) {
      return convert_rows(p, type, i + begin, i + end, block.data() + begin * row_bytes);
    };
    if (auto done = sinq::parallel_for(threads, count, grain, convert); !done) return done;
    if (auto done = to.append(block.span().first(count * row_bytes)); !done) return done;
    if (!progress.update(static_cast<double>(i + count) / static_cast<double>(rows))) return check_goes_on();
  }
  return to.end();
}

/// Type that a tensor will have.
sinq::dtype type_of(const io::checkpoint_tensor& tensor, const dequantize_flags& f) {
  if (!tensor.quantized || f.type.empty()) return tensor.type;
  return f.type == "f32" ? sinq::dtype::f32 : f.type == "f16" ? sinq::dtype::f16 : sinq::dtype::bf16;
}

/// The tensors with the widest types first: without padding each is aligned to its type, which PyTorch's reader needs.
std::vector<const io::checkpoint_tensor*> in_order_of_width(const io::checkpoint& input, const dequantize_flags& f) {
  std::vector<const io::checkpoint_tensor*> tensors;
  for (const io::checkpoint_tensor& tensor : input.tensors()) tensors.push_back(&tensor);
  std::stable_sort(tensors.begin(), tensors.end(), [&](const auto* a, const auto* b) {
    return size_bytes(type_of(*a, f)) > size_bytes(type_of(*b, f));
  });
  return tensors;
}

/// The directory's other files; of an official checkpoint's configuration what an ordinary model has.
result<void> write_side_files(const io::checkpoint& input, io::model_writer& to) {
  const std::string config{io::config_name};
  const std::filesystem::path path = input.model().directory() / config;
  std::error_code ignored;
  if (!input.is_official() || !std::filesystem::exists(path, ignored)) return copy_side_files(input.model(), to);
  const auto text = io::plain_config(path);
  if (!text) return text.error();
  if (auto done = to.write_side_file(config, std::as_bytes(std::span{*text})); !done) return done;
  return copy_side_files(input.model(), to, config);
}

result<void> write_tensors(const io::checkpoint& input, io::model_writer& to, const dequantize_flags& f) {
  const auto bytes = [](const io::checkpoint_tensor& t) { return io::tensor_bytes(t.type, t.shape).value_or(0); };
  double total = 0;
  for (const io::checkpoint_tensor& tensor : input.tensors())
    total += static_cast<double>(bytes(tensor)) * (tensor.quantized ? 1 : copy_work);
  sinq::thread_pool threads{f.threads};
  progress_bar progress{total, f.quiet};
  for (const io::checkpoint_tensor* tensor : in_order_of_width(input, f)) {
    if (auto on = check_goes_on(); !on) return on;
    auto done = tensor->quantized ? dequantize_tensor(*tensor, input.packed(*tensor, &threads), type_of(*tensor, f), to,
                                                      threads, progress)
                                  : copy_tensor(input.model(), *input.model().find(tensor->name), to, 1, progress);
    if (!done) return of_tensor(std::move(done).error(), file_of(input, tensor->name), tensor->name);
    input.release(*tensor);
  }
  return write_side_files(input, to);
}

result<void> run(const dequantize_flags& f) {
  const stopwatch clock;
  const auto input = io::checkpoint::open(f.input);
  if (!input) return input.error();
  if (!input->is_quantized())
    return make_error(errc::invalid_argument, f.input, ": has no quantized tensors to dequantize");
  auto writer = create_output(input->model(), f.output, f.shard_size);
  if (!writer) return std::move(writer).error();
  if (auto done = write_tensors(*input, *writer, f); !done) return done;
  const std::size_t bytes = writer->total_bytes();
  if (auto done = writer->commit(); !done) return done;
  if (!f.quiet) fmt::print("{} tensors, {} in {:.2f} s\n", input->tensors().size(), bytes_text(bytes), clock.seconds());
  return {};
}

} // namespace

command add_dequantize(CLI::App& app) {
  const auto f = std::make_shared<dequantize_flags>();
  CLI::App* const c = app.add_subcommand("dequantize", "Turn a quantized model back into an ordinary one");
  c->add_option("IN", f->input, "What sinq quantize made: a file, or a directory")->required();
  c->add_option("-o,--output", f->output, "The file or directory to write")->required();
  c->add_option("--shard-size", f->shard_size, "Most bytes of a directory's files, such as 5GB, which is the default");
  c->add_option("--dtype", f->type, "Element type of what was quantized; without this, that of the original")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}));
  add_threads_flag(*c, f->threads);
  c->add_flag("--quiet", f->quiet, "Print nothing but errors");
  c->footer("Every tensor comes back under its name, in its shape and element type, with the directory's other files.\n"
            "IN may be a directory in the format of the official sinq package too.");
  return {c, [f] { return run(*f); }};
}

} // namespace sinq_cli
