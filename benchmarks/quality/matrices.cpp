#include "matrices.hpp"

#include "sinq_cli/calibration.hpp"
#include "sinq_cli/tensor_choice.hpp"
#include "support/random_matrices.hpp"

#include <sinq/io/model_reader.hpp>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>

namespace sinq_quality {

namespace io = sinq::io;
using sinq::input_moments;
using sinq::result;

std::vector<std::size_t> evenly(std::size_t count, std::size_t most) {
  std::vector<std::size_t> chosen;
  const std::size_t taken = std::min(count, most);
  for (std::size_t n = 0; n < taken; ++n)
    chosen.push_back(taken == 1 ? 0 : (n * (count - 1) + (taken - 1) / 2) / (taken - 1));
  return chosen;
}

namespace {

/// The tensors of a model that are wanted, before some of them are chosen.
result<std::vector<const io::model_tensor*>> wanted_tensors(const io::model_reader& model, const std::string& only) {
  const auto rule = sinq_cli::name_rule::make(only);
  if (!rule) return sinq::error{rule.error()}.in("--only");
  const auto plan = sinq_cli::choose_tensors(model, 4, {});
  if (!plan) return plan.error();
  std::vector<const io::model_tensor*> wanted;
  for (std::size_t i = 0; i < model.tensors().size(); ++i) {
    const io::tensor_info& info = model.tensors()[i].info;
    const bool taken =
        only.empty() ? (*plan)[i].quantized() : sinq_cli::is_weight_matrix(info) && rule->matches(info.name);
    if (taken) wanted.push_back(&model.tensors()[i]);
  }
  return wanted;
}

subject real_subject(const std::shared_ptr<const io::model_reader>& model, const io::model_tensor& tensor,
                     const std::shared_ptr<const sinq_cli::calibration>& known, const std::string& label) {
  const io::tensor_info& info = tensor.info;
  const auto load = [model, known, &tensor]() -> result<loaded_matrix> {
    const io::tensor_info& of = tensor.info;
    auto inputs = known->find(of.name, false);
    if (!inputs) return std::move(inputs).error();
    return loaded_matrix{model->data(tensor), of.type, of.shape[0], of.shape[1], *std::move(inputs), std::nullopt};
  };
  return {"real", label + ":" + info.name, info.shape[0], info.shape[1], load};
}

} // namespace

result<std::vector<subject>> real_matrices(const real_choice& choice) {
  auto opened = sinq_cli::calibration::open(choice.moments);
  if (!opened) return std::move(opened).error();
  const auto known = std::make_shared<const sinq_cli::calibration>(*std::move(opened));
  std::vector<subject> subjects;
  for (const std::string& path : choice.paths) {
    auto reader = io::model_reader::open(path);
    if (!reader) return std::move(reader).error();
    const auto model = std::make_shared<const io::model_reader>(*std::move(reader));
    const auto wanted = wanted_tensors(*model, choice.only);
    if (!wanted) return wanted.error();
    const std::size_t usual = model->directory().empty() ? wanted->size() : 10;
    const auto label = std::filesystem::weakly_canonical(path).stem().string();
    for (const std::size_t n : evenly(wanted->size(), choice.most != 0 ? choice.most : usual))
      subjects.push_back(real_subject(model, *(*wanted)[n], known, label));
  }
  return subjects;
}

namespace {

/// What the synthetic matrices meet: a sample, and the second moments that it is drawn from.
struct synthetic_inputs {
  input_moments sample, truth;
};

synthetic_inputs make_inputs(std::size_t cols, std::uint64_t seed) {
  constexpr Eigen::Index factors = 8;
  constexpr double loading = 0.25, spread = 0.8;
  sinq_test::random_source random{seed};
  const auto width = static_cast<Eigen::Index>(cols);
  const auto normals = [&](Eigen::Index rows, Eigen::Index columns) {
    Eigen::MatrixXd m(rows, columns);
    for (Eigen::Index i = 0; i < rows; ++i)
      for (Eigen::Index j = 0; j < columns; ++j) m(i, j) = random.normal();
    return m;
  };
  const Eigen::VectorXd size = (spread * normals(width, 1)).array().exp().matrix();
  const Eigen::MatrixXd loadings = size.asDiagonal() * (loading * normals(width, factors));
  Eigen::MatrixXd x = normals(2 * width, width) * size.asDiagonal();
  x += normals(2 * width, factors) * loadings.transpose();
  Eigen::MatrixXd moments = loadings * loadings.transpose();
  moments.diagonal() += size.cwiseAbs2();
  synthetic_inputs made;
  made.sample = input_moments::of(x.cast<float>());
  made.truth.hessian = moments.cast<float>();
  return made;
}

loaded_matrix synthetic_matrix(const sinq_test::matrix& m, std::uint64_t seed) {
  sinq::aligned_buffer<sinq::byte> bytes{m.values.size() * sizeof(float),
                                         sinq::aligned_buffer<sinq::byte>::uninitialized};
  std::memcpy(bytes.data(), m.values.data(), bytes.size());
  synthetic_inputs inputs = make_inputs(m.cols, seed);
  return {sinq::shared_bytes{std::move(bytes)},
          sinq::dtype::f32,
          m.rows,
          m.cols,
          std::move(inputs.sample),
          std::move(inputs.truth)};
}

} // namespace

result<std::vector<subject>> synthetic_matrices(std::size_t rows, std::size_t cols, std::uint64_t seed,
                                                const std::string& only) {
  struct family {
    const char* name;
    std::function<sinq_test::matrix(std::uint64_t)> make;
  };
  const std::vector<family> families{
      {"gaussian", [=](std::uint64_t s) { return sinq_test::gaussian(rows, cols, s); }},
      {"student-t", [=](std::uint64_t s) { return sinq_test::student_t(rows, cols, s); }},
      {"outliers", [=](std::uint64_t s) { return sinq_test::with_outliers(rows, cols, s); }},
  };
  const auto rule = sinq_cli::name_rule::make(only);
  if (!rule) return sinq::error{rule.error()}.in("--only");
  std::vector<subject> subjects;
  for (const family& f : families) {
    seed += 2; // with_outliers uses the next one too
    if (!only.empty() && !rule->matches(f.name)) continue;
    const auto load = [make = f.make, seed]() -> result<loaded_matrix> {
      return synthetic_matrix(make(seed), seed + 1000);
    };
    subjects.push_back({"synthetic", f.name, rows, cols, load});
  }
  return subjects;
}

} // namespace sinq_quality
