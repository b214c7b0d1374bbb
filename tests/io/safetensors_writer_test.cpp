#include "io/files.hpp"

#include <sinq/io/safetensors.hpp>
#include <sinq/io/safetensors_writer.hpp>

#include <csignal>

#include <sys/resource.h>

using namespace sinq_test;
using sinq::dtype;
using sinq::errc;
using sinq::io::safetensors_file;
using sinq::io::safetensors_writer;
using sinq::io::safetensors_writer_options;
using shape = std::vector<std::size_t>;

namespace {

/// Writes `count` tensors of odd sizes; every name is "t<i>".
void write_many(const fs::path& path, std::size_t count, const safetensors_writer_options& options) {
  auto writer = value_of(safetensors_writer::create(path, options));
  for (std::size_t i = 0; i < count; ++i) {
    const std::string data = some_bytes(i * 37, static_cast<unsigned>(i));
    require_ok(writer.add("t" + std::to_string(i), dtype::u8, shape{data.size()}, as_bytes(data)));
  }
  require_ok(writer.set_metadata("about", "many \"small\" tensors \xc3\xa9"));
  require_ok(writer.commit());
}

void check_many(const fs::path& path, std::size_t count) {
  const auto file = value_of(safetensors_file::open(path));
  CHECK(file.metadata() == sinq::io::metadata_map{{"about", "many \"small\" tensors \xc3\xa9"}});
  std::size_t found = 0;
  for (const sinq::io::tensor_info& tensor : file.tensors()) {
    const sinq::shared_bytes data = file.data(tensor);
    if (sinq::io::is_padding(tensor.name)) {
      CHECK(tensor.size_bytes() < 64);
      CHECK(text_of(data.span()) == std::string(tensor.size_bytes(), '\0'));
      continue;
    }
    CHECK(tensor.name == "t" + std::to_string(found));
    CHECK(text_of(data.span()) == some_bytes(found * 37, static_cast<unsigned>(found)));
    if (!data.empty()) CHECK(reinterpret_cast<std::uintptr_t>(data.data()) % 64 == 0);
    ++found;
  }
  CHECK(found == count);
}

} // namespace

TEST_CASE("every element type comes back as it was written") {
  const scratch dir;
  for (const sinq::dtype_info& type : sinq::dtype_table) {
    CAPTURE(std::string{type.name});
    const std::string data = some_bytes(6 * type.size_bytes, 7);
    auto writer = value_of(safetensors_writer::create(dir / "m.safetensors"));
    require_ok(writer.add("matrix", type.type, shape{2, 3}, as_bytes(data)));
    require_ok(writer.add("scalar", type.type, shape{}, as_bytes(data).first(type.size_bytes)));
    require_ok(writer.add("none", type.type, shape{0, 3}, {}));
    require_ok(writer.commit());
    const auto file = value_of(safetensors_file::open(dir / "m.safetensors"));
    REQUIRE(file.find("matrix") != nullptr);
    CHECK(file.find("matrix")->type == type.type);
    CHECK(file.find("matrix")->shape == shape{2, 3});
    CHECK(text_of(file.data(*file.find("matrix")).span()) == data);
    CHECK(file.find("scalar")->shape.empty());
    CHECK(text_of(file.data(*file.find("scalar")).span()) == data.substr(0, type.size_bytes));
    CHECK(file.find("none")->shape == shape{0, 3});
    CHECK(file.data(*file.find("none")).empty());
  }
}

TEST_CASE("data is aligned, and a header that outgrows its reserve moves it") {
  const scratch dir;
  const std::size_t reserve = GENERATE(0u, 1u, 100u, 4096u, 1u << 16);
  const std::size_t count = GENERATE(0u, 1u, 40u, 150u);
  CAPTURE(reserve, count);
  write_many(dir / "m.safetensors", count, {.header_reserve_bytes = reserve});
  check_many(dir / "m.safetensors", count);
  CHECK(names_in(dir.root()) == names{"m.safetensors"});
}

TEST_CASE("a large tensor survives the move of its data") {
  const scratch dir;
  const std::string data = some_bytes((1u << 20) + 12345, 3);
  auto writer = value_of(safetensors_writer::create(dir / "m.safetensors", {.header_reserve_bytes = 0}));
  require_ok(writer.add("large", dtype::u8, shape{data.size()}, as_bytes(data)));
  require_ok(writer.set_metadata("long", std::string(300'000, 'x')));
  require_ok(writer.commit());
  const auto file = value_of(safetensors_file::open(dir / "m.safetensors"));
  CHECK(text_of(file.data(*file.find("large")).span()) == data);
  CHECK(file.metadata().at("long").size() == 300'000);
}

TEST_CASE("tensors can follow each other without padding") {
  const scratch dir;
  auto writer = value_of(safetensors_writer::create(dir / "m.safetensors", {.header_reserve_bytes = 0}));
  require_ok(writer.add("a", dtype::u8, shape{3}, as_bytes("abc"), 1));
  require_ok(writer.add("b", dtype::u8, shape{3}, as_bytes("def"), 1));
  require_ok(writer.add("c", dtype::u16, shape{1}, as_bytes("gh"), 2));
  CHECK(writer.data_bytes() == 8);
  require_ok(writer.add("d", dtype::u8, shape{1}, as_bytes("i"), 4));
  CHECK(writer.tensors().size() == 4);
  require_ok(writer.add("e", dtype::u8, shape{1}, as_bytes("j"), 4));
  REQUIRE(writer.tensors().size() == 6);
  CHECK(writer.tensors()[4].name == "__pad__.0");
  CHECK(writer.tensors()[4].shape == shape{3});
  require_ok(writer.commit());
  const auto file = value_of(safetensors_file::open(dir / "m.safetensors"));
  CHECK(text_of(file.data(*file.find("c")).span()) == "gh");
}

TEST_CASE("a tensor can be written piece by piece") {
  const scratch dir;
  const std::string data = some_bytes(700'000, 5);
  auto writer = value_of(safetensors_writer::create(dir / "m.safetensors"));
  require_ok(writer.begin("a", dtype::f32, shape{175'000}));
  for (std::size_t at = 0, step = 1; at < data.size(); at += step, step = step * 3 % 300'007) {
    step = std::min(step, data.size() - at);
    require_ok(writer.append(as_bytes(data).subspan(at, step)));
  }
  require_ok(writer.end());
  require_ok(writer.commit());
  const auto file = value_of(safetensors_file::open(dir / "m.safetensors"));
  CHECK(text_of(file.data(*file.find("a")).span()) == data);
}

TEST_CASE("the same calls give the same bytes") {
  const scratch dir;
  write_many(dir / "a", 20, {});
  write_many(dir / "b", 20, {});
  CHECK(read_file(dir / "a") == read_file(dir / "b"));
}

TEST_CASE("the header is spaces after JSON in file order, and the data starts on a boundary") {
  const scratch dir;
  auto writer = value_of(safetensors_writer::create(dir / "m", {.header_reserve_bytes = 0}));
  require_ok(writer.set_metadata("k", "v"));
  require_ok(writer.add("b", dtype::u8, shape{2}, as_bytes("xy")));
  require_ok(writer.add("a", dtype::u8, shape{1}, as_bytes("z")));
  require_ok(writer.commit());
  const std::string json = R"({"__metadata__":{"k":"v"},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                           R"("__pad__.0":{"dtype":"U8","shape":[62],"data_offsets":[2,64]},)"
                           R"("a":{"dtype":"U8","shape":[1],"data_offsets":[64,65]}})";
  const std::size_t begin = (8 + json.size() + 63) / 64 * 64;
  const std::string header = json + std::string(begin - 8 - json.size(), ' ');
  const std::string whole = read_file(dir / "m");
  CHECK(whole.substr(0, begin) == safetensors(header, 0));
  CHECK(whole.substr(begin) == "xy" + std::string(62, '\0') + "z");
}

TEST_CASE("wrong calls to a file writer are refused with names and values") {
  const scratch dir;
  const std::string path = (dir / "m.safetensors").string();
  auto writer = value_of(safetensors_writer::create(path));
  const auto four = as_bytes("1234");
  check_error(writer.add("a", dtype::f32, shape{2}, four), errc::invalid_argument,
              {path, "tensor 'a' of F32 and shape [2]", "takes 8", "4 were given"});
  check_error(writer.add("a", dtype::f32, shape{1ull << 62}, four), errc::invalid_argument, {path, "'a'", "2^64"});
  check_error(writer.begin("a", dtype::f32, shape{1ull << 62}), errc::invalid_argument, {path, "'a'", "2^64"});
  require_ok(writer.add("a", dtype::f32, shape{1}, four));
  check_error(writer.add("a", dtype::f32, shape{1}, four), errc::invalid_argument, {path, "'a'", "already"});
  check_error(writer.add("", dtype::f32, shape{1}, four), errc::invalid_argument, {path, "empty"});
  check_error(writer.add("__metadata__", dtype::f32, shape{1}, four), errc::invalid_argument, {path, "reserved"});
  check_error(writer.add("__pad__.7", dtype::f32, shape{1}, four), errc::invalid_argument, {"'__pad__.7'", "reserved"});
  check_error(writer.add("\xff", dtype::f32, shape{1}, four), errc::invalid_argument, {path, "UTF-8"});
  check_error(writer.add("b", dtype::f32, shape{1}, four, 3), errc::invalid_argument, {path, "'b'", "alignment 3"});
  check_error(writer.add("b", dtype::f32, shape{1}, four, 0), errc::invalid_argument, {"alignment 0"});
  check_error(writer.add("b", dtype::f32, shape{1}, four, 128), errc::invalid_argument, {"alignment 128", "64"});
  check_error(writer.set_metadata("\xff", ""), errc::invalid_argument, {path, "UTF-8"});
  check_error(writer.set_metadata("", "\xff"), errc::invalid_argument, {path, "UTF-8"});
  check_error(writer.append(four), errc::invalid_argument, {path, "no tensor"});
  check_error(writer.end(), errc::invalid_argument, {path, "no tensor"});
  require_ok(writer.begin("b", dtype::f32, shape{2}));
  check_error(writer.add("c", dtype::f32, shape{1}, four), errc::invalid_argument, {path, "'c'", "'b'", "ended"});
  check_error(writer.commit(), errc::invalid_argument, {path, "'b'", "not ended"});
  require_ok(writer.append(four));
  check_error(writer.end(), errc::invalid_argument, {path, "'b'", "takes 8", "4 were given"});
  require_ok(writer.append(four));
  check_error(writer.append(four), errc::invalid_argument, {path, "'b'", "takes 8", "12 were given"});
  require_ok(writer.end());
  require_ok(writer.commit());
  CHECK(value_of(safetensors_file::open(path)).find("b")->size_bytes() == 8);
  check_error(safetensors_writer::create(path, {.data_alignment_bytes = 48}), errc::invalid_argument, {path, "48"});
  check_error(safetensors_writer::create(path, {.data_alignment_bytes = 4}), errc::invalid_argument, {path, "4"});
}

TEST_CASE("a target that cannot be a file is refused before anything is written") {
  const scratch dir;
  write_file(dir / "file", "");
  fs::create_directory(dir / "sub");
  check_error(safetensors_writer::create(dir / "sub"), errc::io, {(dir / "sub").string(), "a directory"});
  check_error(safetensors_writer::create(dir / "absent/m"), errc::not_found, {(dir / "absent/m").string(), "create"});
  check_error(safetensors_writer::create(dir / "file/m"), errc::io, {(dir / "file/m").string(), "Not a directory"});
  check_error(safetensors_writer::create("/dev/full"), errc::io, {"/dev/full", "not a regular file"});
  CHECK(names_in(dir.root()) == names{"file", "sub"});
}

TEST_CASE("a directory that is not writable is refused before anything is written") {
  const scratch dir;
  fs::create_directory(dir / "sub");
  fs::permissions(dir.root(), fs::perms{0755});
  fs::permissions(dir / "sub", fs::perms{0555});
  const int status = in_child([&] {
    constexpr uid_t nobody = 65534;
    if (::getuid() == 0 && ::setuid(nobody) != 0) return 1;
    const auto writer = safetensors_writer::create(dir / "sub/m");
    if (writer || writer.error().code != errc::io) return 2;
    return writer.error().message == (dir / "sub/m").string() + ": cannot create: Permission denied" ? 0 : 3;
  });
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a long file name leaves room for the temporary one") {
  const scratch dir;
  const std::string name(255, 'n');
  write_many(dir / name, 3, {});
  check_many(dir / name, 3);
}

TEST_CASE("without commit nothing is left and an earlier file stays") {
  const scratch dir;
  write_file(dir / "old", "old");
  for (const char* name : {"old", "new"}) {
    auto writer = value_of(safetensors_writer::create(dir / name));
    require_ok(writer.add("a", dtype::u8, shape{3}, as_bytes("abc")));
    CHECK(names_in(dir.root()).size() == 2);
    const safetensors_writer moved = std::move(writer);
    CHECK(names_in(dir.root()).size() == 2);
  }
  CHECK(names_in(dir.root()) == names{"old"});
  CHECK(read_file(dir / "old") == "old");
}

TEST_CASE("an earlier file is replaced at once, and who reads it keeps it") {
  const scratch dir;
  write_many(dir / "m", 5, {});
  const auto before = value_of(safetensors_file::open(dir / "m"));
  write_many(dir / "m", 9, {});
  CHECK(text_of(before.data(*before.find("t4")).span()) == some_bytes(4 * 37, 4));
  check_many(dir / "m", 9);
}

TEST_CASE("a killed writer leaves the target as it was") {
  const scratch dir;
  write_file(dir / "old", "old");
  const int status = in_child([&] {
    auto old_file = safetensors_writer::create(dir / "old");
    auto new_file = safetensors_writer::create(dir / "new");
    if (!old_file || !new_file) return 1;
    const std::string data(1 << 20, 'x');
    if (!old_file->add("a", dtype::u8, shape{data.size()}, as_bytes(data))) return 1;
    if (!new_file->add("a", dtype::u8, shape{data.size()}, as_bytes(data))) return 1;
    return ::raise(SIGKILL);
  });
  CHECK(WIFSIGNALED(status));
  CHECK(read_file(dir / "old") == "old");
  CHECK_FALSE(fs::exists(dir / "new"));
}

TEST_CASE("a full disk is an error that leaves nothing") {
  const scratch dir;
  // a file size limit stands in for the disk: writes beyond it fail in the same way
  const std::size_t limit_bytes = GENERATE(100u, 50'000u, 400'000u);
  const int status = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{limit_bytes, limit_bytes};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
    auto writer = safetensors_writer::create(dir / "m.safetensors", {.header_reserve_bytes = 0});
    if (!writer) return 2;
    const std::string data(50'000, 'x');
    bool failed = false;
    for (int i = 0; i < 20 && !failed; ++i)
      failed = !writer->add("t" + std::to_string(i), dtype::u8, shape{data.size()}, as_bytes(data));
    const auto done = writer->commit();
    if (done) return 3;
    if (done.error().message.find("m.safetensors: ") == std::string::npos) return 4;
    writer = sinq::make_error(errc::cancelled, "");
    return names_in(dir.root()).empty() ? 0 : 5;
  });
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(names_in(dir.root()).empty());
}

TEST_CASE("a failed write stays failed and gives the system's reason") {
  const scratch dir;
  const int status = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
    auto file = sinq::io::output_file::create(dir / "f");
    const std::string data(1 << 20, 'x');
    if (!file) return 2;
    const auto written = file->write(as_bytes(data));
    if (written || written.error().code != errc::io) return 3;
    if (written.error().message != (dir / "f").string() + ": cannot write: File too large") return 4;
    if (file->write(as_bytes(data)) || file->commit()) return 5;
    return file->commit().error().message == written.error().message ? 0 : 6;
  });
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
