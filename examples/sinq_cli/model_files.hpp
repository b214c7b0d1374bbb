#pragma once

#include "progress.hpp"

#include <sinq/io/checkpoint.hpp>

#include <filesystem>
#include <string>
#include <string_view>

namespace sinq_cli {

/// Copied and read back tensors count this much of quantized ones, in the progress bar's estimate of time.
inline constexpr double copy_work = 1.0 / 16;

/// The error with the tensor's name and the path of its file put before its sentence.
[[nodiscard]] sinq::error of_tensor(sinq::error failure, const std::filesystem::path& file, std::string_view tensor);
/// The file that holds a tensor of a model, or of a checkpoint.
[[nodiscard]] const std::filesystem::path& file_of(const sinq::io::model_reader& model, std::string_view tensor);
[[nodiscard]] const std::filesystem::path& file_of(const sinq::io::checkpoint& model, std::string_view tensor);

/// Refuses an output that is, or is inside of, what is read, through whatever links.
/// @errors errc::invalid_argument
[[nodiscard]] sinq::result<void> check_output(const sinq::io::model_reader& input, const std::filesystem::path& output);

/// Refuses a report that would replace a file of the input, or the output; an empty path is no report.
[[nodiscard]] sinq::result<void> check_report(const sinq::io::model_reader& input, const std::filesystem::path& report,
                                              const std::filesystem::path& output = {});

/// Begins the output: a directory if the input is one, else a file; with the input's metadata but for that of sinq.
/// @param shard_size    as the user wrote it; empty: the default
/// @param always_index  as in model_writer_options
/// @errors            those of check_output, parse_bytes and model_writer
[[nodiscard]] sinq::result<sinq::io::model_writer> create_output(const sinq::io::model_reader& input,
                                                                 const std::filesystem::path& output,
                                                                 const std::string& shard_size,
                                                                 bool always_index = false);

/// Copies one tensor as it is, in pieces.
/// @errors those of model_writer, errc::cancelled
[[nodiscard]] sinq::result<void> copy_tensor(const sinq::io::model_reader& from, const sinq::io::model_tensor& tensor,
                                             sinq::io::model_writer& to, std::size_t alignment_bytes,
                                             progress_bar& progress);

/// Copies a directory's configuration and tokenizer, all but the file of that name.
[[nodiscard]] sinq::result<void> copy_side_files(const sinq::io::model_reader& from, sinq::io::model_writer& to,
                                                 const std::string& but = {});

/// Bytes of all files that hold the tensors, headers and padding included; 0 for one that cannot be asked.
[[nodiscard]] std::size_t model_bytes(const sinq::io::model_reader& model);

} // namespace sinq_cli
