#include "machine.hpp"

#include "limits.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <fstream>
#include <thread>

#include <sys/utsname.h>
#include <unistd.h>

namespace sinq_bench {

namespace {

/// What follows "name : " in the system's description of the processors, of the first that has it.
std::string processor_field(const std::string& name) {
  std::ifstream file{"/proc/cpuinfo"};
  for (std::string line; std::getline(file, line);)
    if (const std::size_t colon = line.find(": "); line.starts_with(name) && colon != std::string::npos)
      return line.substr(colon + 2);
  return {};
}

std::string processor_name() {
  std::string name = processor_field("model name");
  if (!name.empty()) return name;
  utsname system{};
  return uname(&system) == 0 ? system.machine : "unknown processor";
}

std::string instruction_names() {
  std::string names{to_string(sinq::current_isa())};
  for (const peak& p : peaks())
    if (p.name.find("VNNI") != std::string_view::npos)
      names += " VNNI";
    else if (p.name.find("AMX") != std::string_view::npos)
      names += p.kind == arithmetic::int8 ? " AMX-int8" : " AMX-bf16";
    else if (p.name.find("dot") != std::string_view::npos)
      names += " dotprod";
  return names;
}

std::string compiler_name() {
#if defined(__clang__)
  return fmt::format("clang++ {}.{}", __clang_major__, __clang_minor__);
#else
  return fmt::format("g++ {}.{}", __GNUC__, __GNUC_MINOR__);
#endif
}

/// The choice that the system has made, which it puts in brackets.
std::string huge_page_mode() {
  std::ifstream file{"/sys/kernel/mm/transparent_hugepage/enabled"};
  std::string line;
  std::getline(file, line);
  const std::size_t begin = line.find('['), end = line.find(']');
  return begin == std::string::npos || end == std::string::npos ? "unknown" : line.substr(begin + 1, end - begin - 1);
}

std::size_t cache_bytes(int level) {
  const long bytes = sysconf(level == 2 ? _SC_LEVEL2_CACHE_SIZE : _SC_LEVEL3_CACHE_SIZE);
  return bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
}

} // namespace

machine this_machine() {
  return {.processor = processor_name(),
          .hardware_threads = std::thread::hardware_concurrency(),
          .instructions = instruction_names(),
          .compiler = compiler_name(),
          .huge_pages = huge_page_mode(),
          .date = fmt::format("{:%Y-%m-%d}", fmt::localtime(std::time(nullptr))),
          .l2_bytes = cache_bytes(2),
          .l3_bytes = cache_bytes(3)};
}

std::string machine::to_string() const {
  return fmt::format("{}: {}, {} hardware threads, {}, {}, huge pages {}", date, processor, hardware_threads,
                     instructions, compiler, huge_pages);
}

nlohmann::ordered_json machine::to_json() const {
  return {{"date", date},
          {"processor", processor},
          {"hardware_threads", hardware_threads},
          {"instructions", instructions},
          {"compiler", compiler},
          {"huge_pages", huge_pages}};
}

} // namespace sinq_bench
