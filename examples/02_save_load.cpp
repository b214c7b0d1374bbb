/// Writes a quantized matrix to a native checkpoint, in the layout that matmul reads, beside a tensor that stays as it
/// is; reads both back and multiplies from the mapped file. Usage: 02_save_load [FILE.safetensors]

#include <sinq/io/checkpoint.hpp>
#include <sinq/sinq.hpp>

#include <cstdio>
#include <filesystem>
#include <random>
#include <vector>

namespace {

sinq::result<void> save(const std::filesystem::path& path, sinq::matrix_view<const float> w) {
  const auto q = sinq::quantize(w, {.bits = 3});
  if (!q) return q.error();
  const auto packed = sinq::pack(*q);
  if (!packed) return packed.error();

  auto file = sinq::io::model_writer::create_file(path);
  if (!file) return file.error();
  if (auto done = sinq::io::begin_checkpoint(*file); !done) return done;
  const auto panels = sinq::to_panels(*packed); // or write_packed, for files that are smaller at odd shapes
  if (!panels) return panels.error();
  if (auto done = sinq::io::write_panels(*file, "layer.weight", *panels, sinq::dtype::f32); !done) return done;
  const std::vector<float> bias(w.rows(), 0.5f);
  const std::vector<std::size_t> shape{bias.size()};
  if (auto done = file->add("layer.bias", sinq::dtype::f32, shape, std::as_bytes(std::span{bias})); !done) return done;
  return file->commit(); // the file appears now, whole
}

sinq::result<void> load(const std::filesystem::path& path, sinq::matrix_view<const float> original) {
  const auto file = sinq::io::checkpoint::open(path);
  if (!file) return file.error();
  for (const sinq::io::checkpoint_tensor& tensor : file->tensors()) {
    if (!tensor.quantized) {
      std::printf("%s: %zu bytes as they were\n", tensor.name.c_str(), file->data(tensor).size());
      continue;
    }
    const auto panels = file->panels(tensor); // lies in the mapped file
    if (!panels) return panels.error();
    const std::vector<float> x(original.cols(), 1.0f);
    std::vector<float> y(original.rows());
    auto done = sinq::matmul(*panels, sinq::matrix_view<const float>{x.data(), 1, x.size()}, {y.data(), 1, y.size()});
    if (!done) return done;
    const auto error = sinq::measure_error(original, file->packed(tensor)); // rows again, for all that is not matmul
    if (!error) return error.error();
    std::printf("%s: %s, %d bits, relative error %.5f, first sum %.4f\n", tensor.name.c_str(), panels->method.c_str(),
                panels->format.bits, error->relative_error, y.front());
  }
  return {};
}

} // namespace

int main(int argc, char** argv) {
  const std::filesystem::path path =
      argc > 1 ? std::filesystem::path{argv[1]} : std::filesystem::temp_directory_path() / "sinq_example.safetensors";
  const std::size_t rows = 256;
  const std::size_t cols = 512;
  std::vector<float> weights(rows * cols);
  std::mt19937 random{2};
  std::normal_distribution<float> normal{0.0f, 0.02f};
  for (float& w : weights) w = normal(random);
  const sinq::matrix_view<const float> w{weights.data(), rows, cols};

  for (const sinq::result<void>& step : {save(path, w), load(path, w)})
    if (!step) return std::fprintf(stderr, "%s\n", step.error().message.c_str()), 1;
  std::printf("written to %s\n", path.c_str());
  return 0;
}
