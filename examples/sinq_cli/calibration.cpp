#include "calibration.hpp"

namespace sinq_cli {

namespace io = sinq::io;
using sinq::errc;
using sinq::input_moments;
using sinq::make_error;
using sinq::result;

void add_moments_flag(CLI::App& app, std::string& path) {
  app.add_option("--moments", path,
                 "A .safetensors file of what is known of the inputs of each layer NAME: NAME.second_moment [K], "
                 "NAME.mean_abs [K], NAME.hessian [K, K], NAME.inputs [T, K]; any of these")
      ->type_name("FILE");
}

result<calibration> calibration::open(const std::string& path) {
  calibration opened;
  if (path.empty()) return opened;
  auto file = io::moments_file::open(path);
  if (!file) return std::move(file).error();
  opened.file_ = *std::move(file);
  return opened;
}

result<std::optional<input_moments>> calibration::find(const std::string& weight, bool needed) const {
  if (!file_ && needed)
    return make_error(errc::invalid_argument, "input moments are needed, and no --moments FILE is given");
  if (!file_) return std::optional<input_moments>{};
  auto found = file_->find(weight);
  if (found) return std::optional{*std::move(found)};
  if (found.error().code == errc::not_found && !needed) return std::optional<input_moments>{};
  return std::move(found).error();
}

} // namespace sinq_cli
