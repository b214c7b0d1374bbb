#include "steps.hpp"

#include "measure/rotation.hpp"
#include "support/random_matrices.hpp"

#include <sinq/core/convert.hpp>
#include <sinq/cuda/convert.hpp>
#include <sinq/metrics.hpp>

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace sinq_bench {

namespace {

constexpr std::size_t most_random_rows = 256;

/// The value of a result; an error ends the program.
template <class T>
T value_of(sinq::result<T>&& r) {
  if (!r) throw std::runtime_error{r.error().message};
  return *std::move(r);
}

/// The same in memory of its own.
sinq::quantized_matrix copy_of(const sinq::quantized_matrix& q) {
  sinq::quantized_matrix copy;
  copy.format = q.format;
  copy.method = q.method;
  copy.codes = {q.codes.size(), sinq::aligned_buffer<std::uint8_t>::uninitialized};
  std::copy(q.codes.begin(), q.codes.end(), copy.codes.begin());
  copy.scale = q.scale;
  copy.zero = q.zero;
  copy.col_scale = q.col_scale;
  copy.scale_base = q.scale_base;
  copy.zero_base = q.zero_base;
  copy.custom_levels = q.custom_levels;
  return copy;
}

} // namespace

source_weights::source_weights(std::size_t rows, std::size_t cols, sinq::dtype type, std::size_t bytes)
    : rows_{rows}, cols_{cols}, type_{type}, count_{matrices_in(bytes, rows * cols * size_bytes(type))},
      memory_{count_ * rows * cols * size_bytes(type)} {
  const std::size_t random_rows = std::min(rows, most_random_rows);
  const sinq_test::matrix random = sinq_test::student_t(random_rows, cols, 1);
  sinq::byte* const begin = memory_.span().data();
  sinq::store_floats(random.values, type, begin);
  const std::size_t row_bytes = cols * size_bytes(type);
  for (std::size_t row = random_rows; row < count_ * rows;) {
    const std::size_t copied = std::min(random_rows, count_ * rows - row);
    std::memcpy(begin + row * row_bytes, begin, copied * row_bytes);
    row += copied;
  }
}

sinq::result<quantize_trial> make_trial(const std::string& name, int bits, std::size_t group_size) {
  constexpr std::string_view refined = "+weights";
  const bool refines = name.ends_with(refined);
  const std::string method = name.substr(0, name.size() - (refines ? refined.size() : 0));
  const auto id = sinq::parse_method(method);
  if (!id) return sinq::make_error(sinq::errc::invalid_argument, "no method is called ", method);
  quantize_trial trial{name, {.method = *id, .bits = bits, .group_size = group_size}};
  trial.options.refine = refines ? sinq::refine_mode::weights : sinq::refine_mode::none;
  if (auto ok = check_options(trial.options); !ok) return ok.error();
  return trial;
}

sinq::result<trial_inputs> prepare(const quantize_trial& trial, const source_weights& from) {
  trial_inputs inputs;
  auto first = sinq::quantize(from[0], trial.options);
  if (!first) return std::move(first).error();
  inputs.quantized.push_back(*std::move(first));
  while (inputs.quantized.size() < from.count()) inputs.quantized.push_back(copy_of(inputs.quantized.front()));
  for (const sinq::quantized_matrix& q : inputs.quantized) {
    auto packed = sinq::pack(q);
    if (!packed) return std::move(packed).error();
    inputs.packed.push_back(*std::move(packed));
  }
  const auto error = sinq::measure_error(from[0], inputs.packed.front());
  if (!error) return error.error();
  inputs.error = error->relative_error;
  return inputs;
}

subject timed_step(step what, const quantize_trial& trial, const source_weights& from, const trial_inputs& inputs,
                   const huge_memory& out, sinq::executor& threads) {
  const sinq::run_options run{.threads = &threads};
  sinq::quantize_options options = trial.options;
  options.run = run;
  const auto turn = std::make_shared<rotation>(from.count());
  const auto call = [what, options, &from, &inputs, &out, run, turn] {
    const std::size_t n = turn->next();
    switch (what) {
    case step::quantize: static_cast<void>(value_of(sinq::quantize(from[n], options))); break;
    case step::pack: static_cast<void>(value_of(sinq::pack(inputs.quantized[n], run))); break;
    case step::both: static_cast<void>(value_of(sinq::quantize_packed(from[n], options))); break;
    case step::dequantize:
      sinq::dequantize(inputs.packed[n], {reinterpret_cast<float*>(out.span().data()), from[n].rows(), from[n].cols()},
                       run);
      break;
    case step::to_panels: static_cast<void>(value_of(sinq::to_panels(inputs.packed[n], run))); break;
    case step::to_device_layout:
      static_cast<void>(value_of(sinq::cuda::to_device_layout(inputs.packed[n], run.threads)));
      break;
    }
  };
  return {.call = call, .work = from.weights()};
}

} // namespace sinq_bench
