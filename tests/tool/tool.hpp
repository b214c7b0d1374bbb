#pragma once

/// Runs the tool as a user does, and makes models for it.

#include "io/files.hpp"

#include <sinq/core/convert.hpp>
#include <sinq/io/model_reader.hpp>
#include <sinq/io/model_writer.hpp>

#include <array>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include <sys/wait.h>

namespace sinq_test {

/// What one run of the tool left.
struct tool_run {
  int status = -1; ///< exit status; 128 + N if signal N ended it
  std::string out;
  std::string err;
};

inline std::string shell_quoted(const std::string& text) {
  std::string quoted{"'"};
  for (const char c : text) quoted += c == '\'' ? std::string{"'\\''"} : std::string{c};
  return quoted + "'";
}

/// Runs the tool with these arguments in a directory of its own.
inline tool_run run_tool(const std::vector<std::string>& arguments, const std::string& before = "") {
  const scratch logs;
  std::string command = before + shell_quoted(SINQ_TOOL);
  for (const std::string& argument : arguments) command += " " + shell_quoted(argument);
  command += " >" + shell_quoted((logs / "out").string()) + " 2>" + shell_quoted((logs / "err").string());
  const int status = std::system(command.c_str());
  tool_run run;
  run.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  run.out = read_file(logs / "out");
  run.err = read_file(logs / "err");
  return run;
}

/// Runs the tool, which must succeed and say nothing on stderr.
inline tool_run run_well(const std::vector<std::string>& arguments) {
  tool_run run = run_tool(arguments);
  INFO(SINQ_TOOL << " " << Catch::StringMaker<std::vector<std::string>>::convert(arguments));
  INFO(run.err);
  REQUIRE(run.status == 0);
  REQUIRE(run.err.empty());
  return run;
}

/// Runs the tool, which must fail with one line that has all these pieces; status 0 accepts any but success.
inline void run_badly(const std::vector<std::string>& arguments, const std::vector<std::string>& pieces,
                      int status = 1) {
  const tool_run run = run_tool(arguments);
  INFO(Catch::StringMaker<std::vector<std::string>>::convert(arguments));
  INFO(run.err);
  if (status != 0)
    CHECK(run.status == status);
  else
    CHECK((run.status != 0 && run.status < 128));
  CHECK(run.err.starts_with("sinq: error: "));
  CHECK(std::count(run.err.begin(), run.err.end(), '\n') == 1);
  CHECK(run.err.ends_with('\n'));
  for (const std::string& piece : pieces) {
    CAPTURE(piece);
    CHECK(run.err.find(piece) != std::string::npos);
  }
}

/// A tensor to put in a model.
struct made_tensor {
  std::string name;
  sinq::dtype type;
  std::vector<std::size_t> shape;
  std::string bytes;
};

/// Weights that look like a layer's, one column ten times as large.
inline std::vector<float> some_weights(std::size_t rows, std::size_t cols, unsigned seed) {
  std::vector<float> w(rows * cols);
  for (std::size_t n = 0; n < w.size(); ++n) {
    float sum = 0;
    for (int k = 0; k < 4; ++k)
      sum += static_cast<float>((seed = seed * 1664525u + 1013904223u) >> 16) / 65536.0f - 0.5f;
    w[n] = sum * (n % cols == cols / 2 ? 0.5f : 0.05f);
  }
  return w;
}

inline made_tensor float_tensor(const std::string& name, sinq::dtype type, const std::vector<std::size_t>& shape,
                                const std::vector<float>& values) {
  made_tensor t{name, type, shape, std::string(values.size() * size_bytes(type), '\0')};
  sinq::store_floats(values, type, reinterpret_cast<sinq::byte*>(t.bytes.data()));
  return t;
}

inline made_tensor weight(const std::string& name, sinq::dtype type, std::size_t rows, std::size_t cols,
                          unsigned seed = 1) {
  return float_tensor(name, type, {rows, cols}, some_weights(rows, cols, seed));
}

inline void add_all(sinq::io::model_writer& to, const std::vector<made_tensor>& tensors) {
  require_ok(to.set_metadata("format", "pt"));
  for (const made_tensor& t : tensors) require_ok(to.add(t.name, t.type, t.shape, as_bytes(t.bytes), 1));
  require_ok(to.commit());
}

inline fs::path make_model(const fs::path& path, const std::vector<made_tensor>& tensors) {
  auto writer = value_of(sinq::io::model_writer::create_file(path));
  add_all(writer, tensors);
  return path;
}

/// A directory with shards of at most that many bytes, a configuration and a tokenizer.
inline fs::path make_directory(const fs::path& path, const std::vector<made_tensor>& tensors, std::size_t shard_bytes) {
  auto writer = value_of(sinq::io::model_writer::create_directory(path, {.shard_bytes = shard_bytes, .file = {}}));
  require_ok(writer.write_side_file("config.json", as_bytes("{\"model_type\": \"test\"}\n")));
  require_ok(writer.write_side_file("tokenizer.json", as_bytes("{}\n")));
  add_all(writer, tensors);
  return path;
}

/// A model with all that a directory may hold.
inline std::vector<made_tensor> usual_tensors() {
  using sinq::dtype;
  return {weight("model.embed_tokens.weight", dtype::bf16, 40, 32, 1),
          weight("model.layers.0.self_attn.q_proj.weight", dtype::bf16, 64, 96, 2),
          weight("model.layers.0.mlp.down_proj.weight", dtype::f16, 96, 200, 3),
          weight("model.layers.1.self_attn.q_proj.weight", dtype::f32, 64, 96, 4),
          float_tensor("model.layers.0.input_layernorm.weight", dtype::bf16, {96}, some_weights(1, 96, 5)),
          {"model.positions", dtype::i64, {3}, some_bytes(24, 6)},
          weight("lm_head.weight", dtype::bf16, 40, 32, 7)};
}

/// A tensor's shape and values.
struct read_tensor {
  sinq::dtype type;
  std::vector<std::size_t> shape;
  std::vector<float> values; ///< of floats and U8
};

inline read_tensor read_one(const sinq::io::model_reader& model, const std::string& name) {
  const sinq::io::model_tensor* found = model.find(name);
  INFO(name);
  REQUIRE(found != nullptr);
  const sinq::shared_bytes bytes = model.data(*found);
  read_tensor t{found->info.type, found->info.shape, std::vector<float>(found->info.elements())};
  if (t.type == sinq::dtype::u8)
    for (std::size_t i = 0; i < t.values.size(); ++i) t.values[i] = static_cast<float>(bytes.data()[i]);
  else if (info(t.type).is_float)
    sinq::load_floats(bytes.data(), t.type, t.values);
  return t;
}

} // namespace sinq_test
