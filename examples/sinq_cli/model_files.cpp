#include "model_files.hpp"

#include "signals.hpp"
#include "text.hpp"

#include <algorithm>
#include <system_error>

namespace sinq_cli {

namespace fs = std::filesystem;
namespace io = sinq::io;
using sinq::errc;
using sinq::make_error;
using sinq::result;

sinq::error of_tensor(sinq::error failure, const fs::path& file, std::string_view tensor) {
  return std::move(failure).in("tensor " + io::in_quotes(tensor)).in(file.string());
}

const fs::path& file_of(const io::model_reader& model, std::string_view tensor) {
  const io::model_tensor* found = model.find(tensor);
  return model.files()[found == nullptr ? 0 : found->file].path();
}

const fs::path& file_of(const io::checkpoint& model, std::string_view tensor) {
  const io::checkpoint_tensor* found = model.find(tensor);
  return model.model().files()[found == nullptr ? 0 : model.stored(*found).file].path();
}

namespace {

/// The files that a model is read from: weights, index, configuration.
result<std::vector<fs::path>> input_files(const io::model_reader& input) {
  auto files = input.side_files();
  if (!files) return files;
  for (const io::safetensors_file& file : input.files()) files->push_back(file.path());
  if (!input.directory().empty()) files->push_back(input.directory() / io::model_index_name);
  return files;
}

result<void> refuse_same(const fs::path& output, const fs::path& input) {
  if (!io::same_file(output, input)) return {};
  return make_error(errc::invalid_argument, output.string(), ": the output is the same file or directory as the input ",
                    io::in_quotes(input.string()));
}

/// Whether a path is inside a directory, or is it, once all links are followed.
bool lies_in(const fs::path& path, const fs::path& directory) {
  std::error_code failed;
  for (fs::path at = fs::weakly_canonical(fs::absolute(path, failed), failed); !failed; at = at.parent_path()) {
    if (io::same_file(at, directory)) return true;
    if (at == at.parent_path()) break;
  }
  return false;
}

bool is_ours(std::string_view metadata_key) {
  return metadata_key.starts_with("sinq.");
}

} // namespace

result<void> check_output(const io::model_reader& input, const fs::path& output) {
  if (!input.directory().empty() && lies_in(output, input.directory()))
    return make_error(errc::invalid_argument, output.string(), ": the output is the input directory ",
                      io::in_quotes(input.directory().string()), " or lies in it");
  const auto files = input_files(input);
  if (!files) return files.error();
  for (const fs::path& file : *files)
    if (auto differs = refuse_same(output, file); !differs) return differs;
  std::error_code failed;
  if (!fs::is_directory(output, failed)) return {};
  // files of an earlier output are replaced: they must not be what the input's links lead to
  for (fs::directory_iterator at{output, failed}; !failed && at != fs::directory_iterator{}; at.increment(failed))
    for (const fs::path& file : *files)
      if (auto differs = refuse_same(at->path(), file); !differs) return differs;
  if (failed) return io::system_failure(output, "list the directory", failed.value());
  return {};
}

result<void> check_report(const io::model_reader& input, const fs::path& report, const fs::path& output) {
  if (report.empty()) return {};
  const auto files = input_files(input);
  if (!files) return files.error();
  for (const fs::path& file : *files)
    if (auto differs = refuse_same(report, file); !differs) return differs;
  std::error_code failed;
  if (!output.empty() && fs::weakly_canonical(report, failed) == fs::weakly_canonical(output, failed))
    return make_error(errc::invalid_argument, report.string(), ": the JSON report is the same file as the output");
  return {};
}

result<io::model_writer> create_output(const io::model_reader& input, const fs::path& output,
                                       const std::string& shard_size, bool always_index) {
  if (auto differs = check_output(input, output); !differs) return std::move(differs).error();
  io::model_writer_options options;
  options.always_index = always_index;
  if (!shard_size.empty()) {
    if (input.directory().empty())
      return make_error(errc::invalid_argument, "--shard-size needs a directory as input, but ",
                        io::in_quotes(input.files()[0].path().string()), " is a file");
    const auto bytes = parse_bytes(shard_size);
    if (!bytes) return sinq::error{bytes.error()}.in("--shard-size");
    options.shard_bytes = *bytes;
  }
  auto writer = input.directory().empty() ? io::model_writer::create_file(output, options)
                                          : io::model_writer::create_directory(output, options);
  if (!writer) return writer;
  for (const auto& [key, value] : input.metadata())
    if (!is_ours(key))
      if (auto done = writer->set_metadata(key, value); !done) return std::move(done).error();
  return writer;
}

result<void> copy_tensor(const io::model_reader& from, const io::model_tensor& tensor, io::model_writer& to,
                         std::size_t alignment_bytes, progress_bar& progress) {
  constexpr std::size_t piece_bytes = std::size_t{1} << 23;
  const io::tensor_info& info = tensor.info;
  const sinq::shared_bytes data = from.data(tensor);
  progress.begin(info.name, data.size(), static_cast<double>(data.size()) * copy_work);
  if (auto done = to.begin(info.name, info.type, info.shape, alignment_bytes); !done) return done;
  for (std::size_t at = 0; at < data.size(); at += piece_bytes) {
    const std::size_t count = std::min(piece_bytes, data.size() - at);
    if (auto done = to.append(data.span().subspan(at, count)); !done) return done;
    from.release(tensor);
    if (!progress.update(static_cast<double>(at + count) / static_cast<double>(data.size()))) return check_goes_on();
  }
  return to.end();
}

result<void> copy_side_files(const io::model_reader& from, io::model_writer& to, const std::string& but) {
  const auto files = from.side_files();
  if (!files) return files.error();
  for (const fs::path& file : *files) {
    if (file.filename() == but) continue;
    if (auto done = to.copy_side_file(file); !done) return done;
    if (auto on = check_goes_on(); !on) return on;
  }
  return {};
}

std::size_t model_bytes(const io::model_reader& model) {
  std::size_t sum = 0;
  for (const io::safetensors_file& file : model.files()) {
    std::error_code failed;
    const auto bytes = fs::file_size(file.path(), failed);
    if (!failed) sum += bytes;
  }
  return sum;
}

} // namespace sinq_cli
