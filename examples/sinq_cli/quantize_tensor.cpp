#include "quantize_tensor.hpp"

#include "model_files.hpp"
#include "signals.hpp"

#include <sinq/pack/quantize_packed.hpp>

namespace sinq_cli {

namespace {

namespace io = sinq::io;
using sinq::result;

/// Writes one quantized tensor in the format and layout that are asked for.
result<void> write_one(quantize_job& work, const io::tensor_info& info, const sinq::packed_matrix& packed,
                       io::model_writer& to) {
  if (work.official) return work.official->add(to, info.name, packed, info.type);
  if (work.layout() == io::code_layout::canonical) return io::write_packed(to, info.name, packed, info.type);
  const auto panels = sinq::to_panels(packed, {.threads = work.options.run.threads, .progress = {}});
  if (!panels) return panels.error();
  return io::write_panels(to, info.name, *panels, info.type);
}

result<sinq::packed_matrix> quantize_one(quantize_job& work, std::size_t tensor, const sinq::input_moments* measured,
                                         io::model_writer& to, progress_bar& progress) {
  const io::model_tensor& stored = work.input.tensors()[tensor];
  const io::tensor_info& info = stored.info;
  const sinq::shared_bytes data = work.input.data(stored);
  const sinq::weight_view w{data.data(), info.type, info.shape[0], info.shape[1]};
  progress.begin(info.name, data.size(), static_cast<double>(data.size()));
  sinq::quantize_options options = work.options_of(tensor);
  options.run.progress = progress.callback();
  const bool needs_inputs = sinq::info(options.method).needs_inputs || options.refine == sinq::refine_mode::inputs;
  const auto known = work.inputs.find(info.name, needs_inputs && measured == nullptr);
  if (!known) return known.error();
  options.inputs = measured != nullptr ? measured : *known ? &**known : nullptr;
  const stopwatch clock;
  auto packed = sinq::quantize_packed(w, options);
  if (!packed) return packed;
  const double seconds = clock.seconds();
  const auto error = sinq::measure_error(w, *packed, sinq::column_normalizing_weights(w), nullptr,
                                         {.threads = options.run.threads, .progress = {}});
  if (!error) return error.error();
  if (!error->finite)
    return sinq::make_error(sinq::errc::not_representable,
                            "the quantized weights stand for values beyond the range of F32");
  work.quantized.push_back({info.name, info.type, packed->format, work.layout(), packed->method, *error, seconds});
  if (auto written = write_one(work, info, *packed, to); !written) return std::move(written).error();
  work.input.release(stored);
  if (auto on = check_goes_on(); !on) return std::move(on).error();
  return packed;
}

sinq::error of_input(sinq::error failure, const quantize_job& work, std::size_t tensor) {
  const std::string& name = work.input.tensors()[tensor].info.name;
  return of_tensor(std::move(failure), file_of(work.input, name), name);
}

} // namespace

result<sinq::packed_matrix> quantize_tensor(quantize_job& work, std::size_t tensor, const sinq::input_moments* measured,
                                            io::model_writer& to, progress_bar& progress) {
  auto packed = quantize_one(work, tensor, measured, to, progress);
  if (!packed) return of_input(std::move(packed).error(), work, tensor);
  return packed;
}

result<void> keep_tensor(quantize_job& work, std::size_t tensor, io::model_writer& to, progress_bar& progress) {
  const io::model_tensor& stored = work.input.tensors()[tensor];
  if (work.official) work.official->note(stored.info);
  const std::size_t alignment = work.official ? size_bytes(stored.info.type) : io::default_alignment_bytes;
  auto done = copy_tensor(work.input, stored, to, alignment, progress);
  if (!done) return of_input(std::move(done).error(), work, tensor);
  return {};
}

} // namespace sinq_cli
