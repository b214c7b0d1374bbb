#include "report.hpp"

#include <cstdlib>
#include <fstream>

#include <sys/resource.h>

namespace sinq_cli {

using sinq::result;

result<json_report> json_report::create(const std::string& path) {
  json_report report;
  if (path.empty()) return report;
  auto file = sinq::io::output_file::create(path);
  if (!file) return std::move(file).error();
  report.file_.emplace(*std::move(file));
  return report;
}

result<void> json_report::write(const nlohmann::json& document) {
  if (!file_) return {};
  // a path may be any bytes: what is not UTF-8 in it is replaced
  const std::string text = document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  return file_->write(std::as_bytes(std::span{text}));
}

result<void> json_report::commit() {
  if (!file_) return {};
  return file_->commit();
}

nlohmann::json report_head(const char* command) {
  return {{"command", command}, {"sinq", SINQ_VERSION_STRING}};
}

std::size_t peak_memory_bytes() {
  // getrusage also counts the program that started this one, up to exec
  std::ifstream status{"/proc/self/status"};
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::strtoull(line.c_str() + 6, nullptr, 10) * 1024;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
}

} // namespace sinq_cli
