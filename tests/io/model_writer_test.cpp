#include "io/files.hpp"

#include <sinq/io/model_writer.hpp>

#include <csignal>

#include <sys/resource.h>

using namespace sinq_test;
using sinq::dtype;
using sinq::errc;
using sinq::io::model_reader;
using sinq::io::model_writer;
using shape = std::vector<std::size_t>;

namespace {

/// Adds `count` tensors of `size` bytes each, named "<prefix><i>".
void add_tensors(model_writer& writer, const std::string& prefix, std::size_t count, std::size_t size) {
  for (std::size_t i = 0; i < count; ++i)
    require_ok(writer.add(prefix + std::to_string(i), dtype::u8, shape{size},
                          as_bytes(some_bytes(size, static_cast<unsigned>(i)))));
}

/// A directory with `count` tensors of 64 bytes, two in a shard.
void write_model(const fs::path& target, const std::string& prefix, std::size_t count) {
  auto writer = value_of(model_writer::create_directory(target, {.shard_bytes = 128, .file = {}}));
  add_tensors(writer, prefix, count, 64);
  require_ok(writer.commit());
}

void check_model(const fs::path& target, const std::string& prefix, std::size_t count) {
  const auto model = value_of(model_reader::open(target));
  CHECK(model.tensors().size() == count);
  for (std::size_t i = 0; i < count; ++i) {
    const sinq::io::model_tensor* tensor = model.find(prefix + std::to_string(i));
    REQUIRE(tensor != nullptr);
    CHECK(text_of(model.data(*tensor).span()) == some_bytes(64, static_cast<unsigned>(i)));
  }
}

} // namespace

TEST_CASE("a model in one file") {
  const scratch dir;
  auto writer = value_of(model_writer::create_file(dir / "m.safetensors", {.shard_bytes = 1, .file = {}}));
  require_ok(writer.set_metadata("format", "pt"));
  add_tensors(writer, "t", 10, 64);
  require_ok(writer.set_shard_metadata("late", "yes"));
  CHECK(writer.total_bytes() == 640);
  CHECK(writer.target() == dir / "m.safetensors");
  check_error(writer.copy_side_file("/dev/null"), errc::io, {"/dev/null"});
  check_error(writer.write_side_file("config.json", as_bytes("{}")), errc::invalid_argument,
              {"m.safetensors", "'config.json'", "directory"});
  require_ok(writer.commit());
  CHECK(names_in(dir.root()) == names{"m.safetensors"});
  check_model(dir / "m.safetensors", "t", 10);
  CHECK(value_of(model_reader::open(dir / "m.safetensors")).metadata() ==
        sinq::io::metadata_map{{"format", "pt"}, {"late", "yes"}});
}

TEST_CASE("a small model in a directory has one file and no index") {
  const scratch dir;
  write_model(dir / "out", "t", 2);
  CHECK(names_in(dir.root()) == names{"out"});
  CHECK(names_in(dir / "out") == names{"model.safetensors"});
  check_model(dir / "out", "t", 2);
}

TEST_CASE("a model without tensors is a model") {
  const scratch dir;
  write_model(dir / "out/", "t", 0);
  check_model(dir / "out", "t", 0);
}

TEST_CASE("a large model is sharded, with an index") {
  const scratch dir;
  auto writer = value_of(model_writer::create_directory(dir / "out", {.shard_bytes = 200, .file = {}}));
  require_ok(writer.set_metadata("format", "pt"));
  add_tensors(writer, "t", 4, 64);
  require_ok(writer.set_shard_metadata("of t3", "x"));
  require_ok(writer.add("large", dtype::f32, shape{100}, as_bytes(some_bytes(400, 1))));
  require_ok(writer.add("odd", dtype::u8, shape{5}, as_bytes("12345")));
  require_ok(writer.add("none", dtype::u8, shape{0}, {}));
  require_ok(writer.add("last", dtype::u8, shape{1}, as_bytes("6")));
  require_ok(writer.commit());
  CHECK(names_in(dir.root()) == names{"out"});
  CHECK(names_in(dir / "out") == names{"model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors",
                                       "model-00003-of-00004.safetensors", "model-00004-of-00004.safetensors",
                                       index_name});
  const auto index = nlohmann::json::parse(read_file(dir / "out" / index_name));
  const std::string first = "model-00001-of-00004.safetensors";
  const std::string fourth = "model-00004-of-00004.safetensors";
  const nlohmann::json expected{{"t0", first},
                                {"t1", first},
                                {"t2", first},
                                {"t3", "model-00002-of-00004.safetensors"},
                                {"large", "model-00003-of-00004.safetensors"},
                                {"odd", fourth},
                                {"none", fourth},
                                {"last", fourth}};
  CHECK(index == nlohmann::json{{"metadata", {{"total_size", 4 * 64 + 400 + 5 + 1}}}, {"weight_map", expected}});
  const auto model = value_of(model_reader::open(dir / "out"));
  CHECK(model.tensors().size() == 8);
  for (const auto& file : model.files()) CHECK(file.metadata().at("format") == "pt");
  CHECK(model.files()[1].metadata().contains("of t3"));
  CHECK_FALSE(model.files()[0].metadata().contains("of t3"));
  CHECK(text_of(model.data(*model.find("last")).span()) == "6");
}

TEST_CASE("tensors that belong together stay in one shard") {
  const scratch dir;
  auto writer = value_of(model_writer::create_directory(dir / "out", {.shard_bytes = 200, .file = {}}));
  require_ok(writer.keep_together(128));
  add_tensors(writer, "a", 2, 64);
  require_ok(writer.keep_together(128));
  add_tensors(writer, "b", 2, 64);
  require_ok(writer.keep_together(64 * 9));
  add_tensors(writer, "c", 9, 64);
  add_tensors(writer, "d", 1, 64);
  require_ok(writer.commit());
  const auto model = value_of(model_reader::open(dir / "out"));
  CHECK(model.files().size() == 4);
  for (const auto& [name, file] :
       std::map<std::string, std::size_t>{{"a0", 0}, {"a1", 0}, {"b0", 1}, {"b1", 1}, {"c0", 2}, {"c8", 2}, {"d0", 3}})
    CHECK(model.find(name)->file == file);
}

TEST_CASE("the same calls give the same directory") {
  const scratch dir;
  for (const char* target : {"x", "y"}) write_model(dir / target, "t", 9);
  REQUIRE(names_in(dir / "x") == names_in(dir / "y"));
  for (const std::string& name : names_in(dir / "x")) CHECK(read_file(dir / "x" / name) == read_file(dir / "y" / name));
}

TEST_CASE("side files come along") {
  const scratch dir;
  write_file(dir / "config.json", "{\"a\":1}");
  write_file(dir / "empty", "");
  auto writer = value_of(model_writer::create_directory(dir / "out"));
  require_ok(writer.copy_side_file(dir / "config.json"));
  require_ok(writer.copy_side_file(dir / "empty"));
  require_ok(writer.write_side_file("note.txt", as_bytes("hello")));
  check_error(writer.copy_side_file(dir / "absent"), errc::not_found, {(dir / "absent").string()});
  check_error(writer.copy_side_file(dir / "config.json"), errc::invalid_argument, {"'config.json'", "twice"});
  for (const char* name :
       {"", ".", "..", "a/b", "/x", "model.safetensors", index_name, "model-00001-of-00002.safetensors", "part-0"})
    check_error(writer.write_side_file(name, {}), errc::invalid_argument, {(dir / "out").string(), "side file"});
  require_ok(writer.commit());
  CHECK(names_in(dir / "out") == names{"config.json", "empty", "model.safetensors", "note.txt"});
  CHECK(read_file(dir / "out/config.json") == "{\"a\":1}");
  CHECK(read_file(dir / "out/empty").empty());
}

TEST_CASE("a model is replaced in an existing directory") {
  const scratch dir;
  const fs::path out = dir / "out";
  const auto [before, after] =
      GENERATE(table<std::size_t, std::size_t>({{1, 1}, {1, 6}, {6, 1}, {6, 6}, {6, 4}, {4, 6}}));
  CAPTURE(before, after);
  write_model(out, "old", before);
  write_file(out / "mine.txt", "mine");
  write_file(out / "model-card.safetensors", "mine too");
  write_file(out / "config.json", "old");
  auto writer = value_of(model_writer::create_directory(out, {.shard_bytes = 128, .file = {}}));
  add_tensors(writer, "new", after, 64);
  require_ok(writer.write_side_file("config.json", as_bytes("new")));
  check_model(out, "old", before);
  require_ok(writer.commit());
  check_model(out, "new", after);
  names expected{"config.json", "mine.txt", "model-card.safetensors"};
  const std::size_t shards = (after + 1) / 2;
  for (std::size_t i = 1; shards > 1 && i <= shards; ++i)
    expected.push_back("model-0000" + std::to_string(i) + "-of-0000" + std::to_string(shards) + ".safetensors");
  expected.emplace_back(shards > 1 ? index_name : "model.safetensors");
  std::sort(expected.begin(), expected.end());
  CHECK(names_in(out) == expected);
  CHECK(read_file(out / "config.json") == "new");
  CHECK(names_in(dir.root()) == names{"out"});
}

TEST_CASE("without commit nothing is left and an earlier directory stays") {
  const scratch dir;
  write_model(dir / "old", "t", 5);
  const names before = names_in(dir / "old");
  for (const char* target : {"old", "new"}) {
    auto writer = value_of(model_writer::create_directory(dir / target, {.shard_bytes = 128, .file = {}}));
    add_tensors(writer, "x", 7, 64);
    require_ok(writer.write_side_file("config.json", as_bytes("{}")));
    const model_writer moved = std::move(writer);
  }
  CHECK(names_in(dir.root()) == names{"old"});
  CHECK(names_in(dir / "old") == before);
  check_model(dir / "old", "t", 5);
}

TEST_CASE("a target that cannot be a directory is refused before anything is written") {
  const scratch dir;
  write_file(dir / "file", "");
  check_error(model_writer::create_directory(dir / "file"), errc::io, {(dir / "file").string(), "not a directory"});
  check_error(model_writer::create_directory(dir / "file/out"), errc::io, {(dir / "file/out").string(), "create"});
  check_error(model_writer::create_directory(dir / "absent/out"), errc::not_found, {(dir / "absent/out").string()});
  check_error(model_writer::create_directory(dir / "out", {.shard_bytes = 0, .file = {}}), errc::invalid_argument,
              {(dir / "out").string(), "shard_bytes is 0"});
  check_error(model_writer::create_directory(dir / "out", {.file = {.data_alignment_bytes = 3}}),
              errc::invalid_argument, {"data_alignment_bytes is 3"});
  check_error(model_writer::create_file(dir.root()), errc::io, {dir.root().string(), "a directory"});
  CHECK(names_in(dir.root()) == names{"file"});
}

TEST_CASE("a parent or target that is not writable is refused before anything is written") {
  const scratch dir;
  fs::create_directory(dir / "sub");
  fs::permissions(dir.root(), fs::perms{0755});
  fs::permissions(dir / "sub", fs::perms{0555});
  const int status = in_child([&] {
    constexpr uid_t nobody = 65534;
    if (::getuid() == 0 && ::setuid(nobody) != 0) return 1;
    for (const fs::path& target : {dir / "sub", dir / "sub/out"}) {
      const auto writer = model_writer::create_directory(target);
      if (writer || writer.error().code != errc::io) return 2;
      if (writer.error().message.find(target.string() + ": cannot ") != 0) return 3;
      if (writer.error().message.find("Permission denied") == std::string::npos) return 4;
    }
    return 0;
  });
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("wrong calls to a model writer are refused with names and values") {
  const scratch dir;
  const std::string out = (dir / "out").string();
  auto writer = value_of(model_writer::create_directory(out, {.shard_bytes = 100, .file = {}}));
  add_tensors(writer, "t", 3, 64);
  check_error(writer.add("t0", dtype::u8, shape{1}, as_bytes("x")), errc::invalid_argument, {out, "'t0'", "already"});
  check_error(writer.set_metadata("k", "v"), errc::invalid_argument, {out, "'k'", "before the first tensor"});
  check_error(writer.add("u", dtype::u8, shape{2}, as_bytes("x")), errc::invalid_argument,
              {out, "'u'", "takes 2", "1 were"});
  check_error(writer.commit(), errc::invalid_argument, {out, "'u'", "not ended"});
}

TEST_CASE("a side file over a directory of the target is refused before anything is moved") {
  const scratch dir;
  write_model(dir / "out", "t", 2);
  fs::create_directory(dir / "out/config.json");
  {
    auto writer = value_of(model_writer::create_directory(dir / "out"));
    add_tensors(writer, "new", 1, 64);
    require_ok(writer.write_side_file("config.json", {}));
    check_error(writer.commit(), errc::io, {(dir / "out/config.json").string(), "is a directory"});
  }
  check_model(dir / "out", "t", 2);
  CHECK(names_in(dir / "out") == names{"config.json", "model.safetensors"});
}

TEST_CASE("a full disk leaves nothing of a directory") {
  const scratch dir;
  const int status = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{300'000, 300'000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
    {
      auto writer = model_writer::create_directory(dir / "out", {.shard_bytes = 1000, .file = {}});
      if (!writer) return 2;
      const std::string small(1000, 'x');
      const std::string large(400'000, 'x');
      if (!writer->add("a", dtype::u8, shape{1000}, as_bytes(small))) return 3;
      const auto failed = writer->add("b", dtype::u8, shape{400'000}, as_bytes(large));
      if (failed || failed.error().message != (dir / "out").string() + ": cannot write: File too large") return 4;
      if (writer->commit()) return 5;
    }
    return names_in(dir.root()).empty() ? 0 : 6;
  });
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
