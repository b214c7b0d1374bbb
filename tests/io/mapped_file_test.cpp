#include "io/files.hpp"

#include <sinq/io/mapped_file.hpp>

#include <sys/stat.h>

using namespace sinq_test;
using sinq::errc;
using sinq::io::mapped_file;

TEST_CASE("a mapped file has the file's bytes, even after the file is gone") {
  const scratch dir;
  std::string content(100'000, 'x');
  content.front() = 'a';
  content.back() = 'z';
  const auto file = value_of(mapped_file::open(write_file(dir / "f", content)));
  fs::remove(dir / "f");
  CHECK(text_of(file->bytes()) == content);
}

TEST_CASE("released bytes can be read again") {
  const scratch dir;
  std::string content(70'000, 'x');
  content[9000] = 'y';
  const auto file = value_of(mapped_file::open(write_file(dir / "f", content)));
  file->release(0, content.size());
  file->release(9000, 1);
  file->release(69'999, static_cast<std::size_t>(-1));
  file->release(70'000, 1);
  file->release(5, 0);
  CHECK(text_of(file->bytes()) == content);
}

TEST_CASE("an empty file has no bytes") {
  const scratch dir;
  const auto file = value_of(mapped_file::open(write_file(dir / "f", "")));
  CHECK(file->bytes().empty());
  file->release(0, 1);
}

TEST_CASE("what is not a regular file is refused by name, without waiting") {
  const scratch dir;
  check_error(mapped_file::open(dir / "absent"), errc::not_found, {(dir / "absent").string(), "No such file"});
  check_error(mapped_file::open(dir.root()), errc::io, {dir.root().string(), "is a directory"});
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  check_error(mapped_file::open(dir / "pipe"), errc::io, {(dir / "pipe").string(), "not a regular file"});
  check_error(mapped_file::open("/dev/null"), errc::io, {"/dev/null", "not a regular file"});
}

TEST_CASE("two paths to one file are the same file") {
  const scratch dir;
  write_file(dir / "a", "1");
  write_file(dir / "b", "1");
  fs::create_symlink(dir / "a", dir / "link");
  fs::create_hard_link(dir / "a", dir / "hard");
  CHECK(sinq::io::same_file(dir / "a", dir / "a"));
  CHECK(sinq::io::same_file(dir / "a", dir.root() / "." / "a"));
  CHECK(sinq::io::same_file(dir / "a", dir / "link"));
  CHECK(sinq::io::same_file(dir / "a", dir / "hard"));
  CHECK(sinq::io::same_file(dir.root(), dir.root() / "."));
  CHECK_FALSE(sinq::io::same_file(dir / "a", dir / "b"));
  CHECK_FALSE(sinq::io::same_file(dir / "absent", dir / "absent"));
}

TEST_CASE("text of strangers is quoted on one line and cut") {
  CHECK(sinq::io::in_quotes("model.weight") == "'model.weight'");
  CHECK(sinq::io::in_quotes(std::string_view{"a\0b\n\x7f", 5}) == "'a\\x00b\\x0a\\x7f'");
  CHECK(sinq::io::in_quotes(std::string(1000, 'x')) == "'" + std::string(160, 'x') + "...'");
}
