/// Checkpoints that the official package and transformers wrote: their logits come back from what is read here.

#include "golden/golden.hpp"
#include "golden/llama.hpp"

#include <sinq/io/checkpoint.hpp>
#include <sinq/pack/pack.hpp>

#include <fstream>

using namespace sinq_test;
namespace fs = std::filesystem;
namespace io = sinq::io;

namespace {

/// The official model computes in f32, this one in f64; logits are about 1.
constexpr double logit_tolerance = 1e-5;

matrix64 as_matrix(const std::vector<float>& values, const std::vector<std::size_t>& shape) {
  const auto cols = static_cast<Eigen::Index>(shape.back());
  const auto rows = static_cast<Eigen::Index>(values.size()) / cols;
  return Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>{values.data(), rows,
                                                                                                 cols}
      .cast<double>();
}

io::checkpoint open_checkpoint(const fs::path& path) {
  auto opened = io::checkpoint::open(path);
  if (!opened) FAIL(opened.error().message);
  return *std::move(opened);
}

named_weights weights_of(const io::checkpoint& model) {
  return [&model](const std::string& name) -> std::optional<matrix64> {
    const io::checkpoint_tensor* const found = model.find(name);
    if (found == nullptr) return std::nullopt;
    if (found->quantized) return as_matrix(sinq::dequantize(model.packed(*found)), found->shape);
    std::vector<float> values(model.data(*found).size() / size_bytes(found->type));
    sinq::load_floats(model.data(*found).data(), found->type, values);
    return as_matrix(values, found->shape);
  };
}

std::vector<long> tokens_of(const io::safetensors_file& file) {
  const sinq::shared_bytes bytes = file.data(*file.find("tokens"));
  std::vector<long> tokens(bytes.size() / sizeof(std::int64_t));
  std::memcpy(tokens.data(), bytes.data(), bytes.size());
  return tokens;
}

/// Largest difference to the stored logits.
double distance(const fs::path& directory, const io::checkpoint& model, const std::string& stored) {
  const auto file = open(directory.parent_path() / "logits.safetensors");
  const tensor expected = read(file, stored);
  std::ifstream config{directory / "config.json"};
  const llama forward{nlohmann::json::parse(config), weights_of(model)};
  const matrix64 logits = forward.logits(tokens_of(file));
  return (logits - as_matrix(expected.values, {expected.rows, expected.cols})).cwiseAbs().maxCoeff();
}

struct stored_model {
  fs::path directory;
  std::string logits;
};

std::vector<stored_model> stored_models() {
  const fs::path own = fs::path{SINQ_TEST_DATA_DIR} / "checkpoint";
  std::vector<stored_model> models{{own / "hf-b4", "hf-b4"}, {own / "official-b3", "official-b3"}};
#ifdef SINQ_SHARED_DIR
  const fs::path shared = fs::path{SINQ_SHARED_DIR} / "reference" / "golden" / "checkpoint";
  models.push_back({shared / "official-b3", "official-b3"});
  models.push_back({shared / "official-b4", "official-b4"});
  models.push_back({shared / "hf-b4", "official-b4"}); // the same weights
#endif
  return models;
}

} // namespace

TEST_CASE("official checkpoints are read with the logits that their own package computes") {
  for (const auto& [directory, logits] : stored_models()) {
    INFO(directory.string());
    const io::checkpoint model = open_checkpoint(directory);
    CHECK(model.is_official());
    CHECK(model.is_quantized());
    std::size_t quantized = 0;
    for (const io::checkpoint_tensor& tensor : model.tensors()) {
      CHECK(tensor.type == sinq::dtype::f32);
      CHECK(tensor.name.find("rotary") == std::string::npos);
      if (!tensor.quantized) continue;
      ++quantized;
      CHECK(model.method(tensor) == "sinq_quantAux");
      CHECK(model.format(tensor).aux == sinq::aux_dtype::f16);
      CHECK(model.format(tensor) == model.packed(tensor).format);
      model.release(tensor);
    }
    CHECK(quantized % 7 == 0);
    CHECK(quantized > 0);
    CHECK(distance(directory, model, logits) <= logit_tolerance);
  }
}

TEST_CASE("the comparison of logits sees one planted code") {
  const fs::path directory = stored_models()[0].directory;
  const io::checkpoint model = open_checkpoint(directory);
  const auto file = open(directory.parent_path() / "logits.safetensors");
  const tensor expected = read(file, "hf-b4");
  std::ifstream config{directory / "config.json"};
  const named_weights good = weights_of(model);
  const llama forward{nlohmann::json::parse(config), [&](const std::string& name) {
                        auto w = good(name);
                        if (name == "model.layers.0.self_attn.v_proj.weight") {
                          const sinq::quantized_matrix q = sinq::unpack(model.packed(*model.find(name)));
                          (*w)(5, 9) += q.scale[5 * q.format.groups()] * q.col_scale[9]; // one step
                        }
                        return w;
                      }};
  const matrix64 logits = forward.logits(tokens_of(file));
  CHECK((logits - as_matrix(expected.values, {expected.rows, expected.cols})).cwiseAbs().maxCoeff() >
        10 * logit_tolerance);
}
