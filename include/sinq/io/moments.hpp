#pragma once

#include "../core/convert.hpp"
#include "../math/input_moments.hpp"
#include "safetensors.hpp"
#include "safetensors_writer.hpp"

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace sinq::io {

/// Calibration of a model's layers in a safetensors file, mapped: what input_moments holds, a part a tensor.
/// For a weight NAME.weight of K columns, any of these, of any floating type:
///   NAME.second_moment [K], NAME.mean_abs [K], NAME.hessian [K, K], NAME.inputs [T, K]
/// A weight that is called just `w` has them without a prefix, and `x` for inputs.
class moments_file {
public:
  /// @errors  errc::not_found, errc::io, errc::malformed, errc::unsupported, as safetensors_file::open
  [[nodiscard]] static result<moments_file> open(const std::filesystem::path& path,
                                                 const safetensors_limits& limits = {}) {
    auto file = safetensors_file::open(path, limits);
    if (!file) return std::move(file).error();
    return moments_file{*std::move(file)};
  }

  [[nodiscard]] const std::filesystem::path& path() const { return file_.path(); }

  /// What the file knows of the inputs of a weight.
  /// @param weight  the name of the tensor that is multiplied, as in the model
  /// @return        input_moments that check() accepts for one K
  /// @errors        errc::not_found (nothing under that name), errc::malformed (an element type that is not floating, a
  ///                shape that is none of the above, parts of different K), errc::non_finite (a value that is not
  ///                finite, or a negative moment); every message names file and tensor
  [[nodiscard]] result<input_moments> find(std::string_view weight) const {
    const std::string prefix = prefix_of(weight);
    input_moments found;
    std::size_t cols = 0;
    for (const std::string_view part : {"second_moment", "mean_abs", "hessian", "inputs", "x"}) {
      if (part == "x" && !prefix.empty()) continue;
      const tensor_info* const tensor = file_.find(prefix + std::string{part});
      if (tensor == nullptr) continue;
      if (auto ok = read(part, *tensor, cols, found); !ok) return std::move(ok).error().in(where(tensor->name));
    }
    if (cols == 0)
      return make_error(errc::not_found, file_.path().string(), ": has no ", prefix, "second_moment, ", prefix,
                        "mean_abs, ", prefix, "hessian or ", prefix, "inputs for tensor ", in_quotes(weight));
    if (auto ok = found.check(cols); !ok) return std::move(ok).error().in(where(weight));
    return found;
  }

private:
  explicit moments_file(safetensors_file file) : file_{std::move(file)} {}

  /// What stands before the name of a part.
  [[nodiscard]] static std::string prefix_of(std::string_view weight) {
    constexpr std::string_view suffix = ".weight";
    if (weight == "w") return "";
    if (weight.ends_with(suffix)) weight.remove_suffix(suffix.size());
    return std::string{weight} + ".";
  }

  [[nodiscard]] std::string where(std::string_view tensor) const {
    return file_.path().string() + ": tensor " + in_quotes(tensor);
  }

  /// Reads one part; `cols` is K, 0 as long as it is unknown.
  [[nodiscard]] result<void> read(std::string_view part, const tensor_info& tensor, std::size_t& cols,
                                  input_moments& to) const {
    const bool is_vector = part == "second_moment" || part == "mean_abs";
    const std::size_t rank = is_vector ? 1 : 2;
    if (!info(tensor.type).is_float)
      return make_error(errc::malformed, "is ", sinq::to_string(tensor.type), ", expected a floating type");
    if (tensor.shape.size() != rank || tensor.elements() == 0 ||
        (part == "hessian" && tensor.shape.front() != tensor.shape.back()))
      return make_error(errc::malformed, "has shape ", to_string(tensor.shape), ", expected ",
                        is_vector           ? "[columns]"
                        : part == "hessian" ? "[columns, columns]"
                                            : "[tokens, columns]");
    if (cols != 0 && tensor.shape.back() != cols)
      return make_error(errc::malformed, "has shape ", to_string(tensor.shape), ", and other parts are for ", cols,
                        " columns");
    cols = tensor.shape.back();
    const shared_bytes bytes = file_.data(tensor);
    const auto load = [&](float* data) { load_floats(bytes.data(), tensor.type, {data, tensor.elements()}); };
    if (is_vector) {
      std::vector<float>& values = part == "mean_abs" ? to.mean_abs : to.second_moment;
      values.resize(tensor.elements());
      load(values.data());
    } else {
      input_moments::row_major& values = part == "hessian" ? to.hessian : to.inputs;
      values.resize(static_cast<Eigen::Index>(tensor.shape.front()), static_cast<Eigen::Index>(cols));
      load(values.data());
    }
    return {};
  }

  safetensors_file file_;
};

/// Writes what is known of a layer's inputs as moments_file finds it for NAME.weight, in f32: the parts that are there.
/// @param name  NAME. @pre m.check(K) for a K
/// @errors      those of safetensors_writer::add
[[nodiscard]] inline result<void> write_moments(safetensors_writer& to, const std::string& name,
                                                const input_moments& m) {
  const auto add = [&](const char* part, const float* values, std::span<const std::size_t> shape) -> result<void> {
    const std::size_t count = shape.front() * (shape.size() == 1 ? 1 : shape.back());
    if (count == 0) return {};
    return to.add(name + part, dtype::f32, shape, std::as_bytes(std::span{values, count}));
  };
  const auto add_vector = [&](const char* part, const std::vector<float>& values) {
    return add(part, values.data(), std::array{values.size()});
  };
  const auto add_matrix = [&](const char* part, const input_moments::row_major& values) {
    return add(part, values.data(),
               std::array{static_cast<std::size_t>(values.rows()), static_cast<std::size_t>(values.cols())});
  };
  if (auto ok = add_vector(".second_moment", m.second_moment); !ok) return ok;
  if (auto ok = add_vector(".mean_abs", m.mean_abs); !ok) return ok;
  if (auto ok = add_matrix(".hessian", m.hessian); !ok) return ok;
  return add_matrix(".inputs", m.inputs);
}

} // namespace sinq::io
