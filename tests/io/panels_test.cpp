/// Native checkpoints whose tensors are stored in panels.

#include "io/files.hpp"
#include "io/open_checkpoint.hpp"

#include "support/catch.hpp"
#include "support/methods.hpp"
#include "support/packed.hpp"
#include "support/random_quantized.hpp"

#include <sinq/io/checkpoint.hpp>
#include <sinq/pack/pack.hpp>

#include <cstdint>
#include <thread>

using namespace sinq_test;
namespace io = sinq::io;

namespace {

sinq::packed_matrix packed_of(const sinq::matrix_format& format, std::uint64_t seed = 1) {
  return value_of(sinq::pack(random_quantized(format, seed)));
}

/// A checkpoint with "a" in panels, "b", the same in the canonical layout, and "bias", which is not quantized.
void write_both(const fs::path& path, const sinq::packed_matrix& p) {
  auto to = value_of(io::model_writer::create_file(path));
  require_ok(io::begin_checkpoint(to));
  require_ok(io::write_panels(to, "a", value_of(sinq::to_panels(p)), sinq::dtype::bf16));
  require_ok(to.add("bias", sinq::dtype::u8, std::vector<std::size_t>{3}, as_bytes("xyz"), 1));
  require_ok(io::write_packed(to, "b", p, sinq::dtype::f32));
  require_ok(to.commit());
}

/// The parts of a tensor that are there, as they lie in the mapped file.
std::vector<const sinq::byte*> mapped_parts(const io::checkpoint& model, const std::string& name) {
  std::vector<const sinq::byte*> parts;
  for (const std::string_view suffix : io::part_suffixes)
    if (const auto* const part = model.model().find(name + std::string{suffix}); part != nullptr)
      parts.push_back(model.model().data(*part).data());
  return parts;
}

} // namespace

TEST_CASE("panels are read from the file in place, whatever is stored") {
  const scratch dir;
  for (const auto& [rows, cols] : ragged_shapes)
    for (const sinq::matrix_format& format : every_storage(rows, cols)) {
      const sinq::packed_matrix p = packed_of(format, rows);
      const sinq::panel_matrix expected = value_of(sinq::to_panels(p));
      write_both(dir / "q", p);
      const auto model = open_checkpoint(dir / "q");
      REQUIRE(model.tensors().size() == 3);
      const io::checkpoint_tensor& a = *model.find("a");
      CHECK(a.quantized);
      CHECK(a.type == sinq::dtype::bf16);
      CHECK(a.shape == std::vector<std::size_t>{rows, cols});
      CHECK(model.layout(a) == io::code_layout::panels);
      CHECK(model.format(a) == format);
      CHECK(model.method(a) == "test");
      const sinq::panel_matrix w = value_of(model.panels(a));
      CHECK(same_packed(w, expected));
      const auto mapped = mapped_parts(model, "a");
      std::size_t in_place = 0;
      for (const sinq::shared_bytes* part :
           {&w.codes, &w.scale, &w.zero, &w.col_scale, &w.scale_base, &w.zero_base, &w.levels}) {
        if (part->empty()) continue;
        CHECK(reinterpret_cast<std::uintptr_t>(part->data()) % sinq::buffer_alignment_bytes == 0);
        in_place += std::count(mapped.begin(), mapped.end(), part->data()) == 1 ? 1 : 0;
      }
      CHECK(in_place == mapped.size());
      CHECK(mapped.size() == io::detail::parts_of(format, io::code_layout::panels).size());
    }
}

TEST_CASE("each layout gives both kinds of matrices") {
  const scratch dir;
  for (const auto& [rows, cols] : ragged_shapes)
    for (const sinq::matrix_format& format : every_storage(rows, cols)) {
      const sinq::packed_matrix p = packed_of(format, cols);
      write_both(dir / "q", p);
      const auto model = open_checkpoint(dir / "q");
      const io::checkpoint_tensor &a = *model.find("a"), &b = *model.find("b");
      CHECK(model.layout(b) == io::code_layout::canonical);
      CHECK(same_packed(model.packed(a), p));
      CHECK(same_packed(model.packed(b), p));
      CHECK(same_packed(value_of(model.panels(a)), value_of(model.panels(b))));
    }
}

TEST_CASE("what is converted is kept until it is released, and outlives the checkpoint as a copy") {
  const scratch dir;
  const sinq::packed_matrix p = packed_of({.rows = 40, .cols = 200, .scale_bits = 6, .has_col_scale = true});
  write_both(dir / "q", p);
  sinq::packed_matrix kept;
  sinq::panel_matrix w;
  {
    const auto model = open_checkpoint(dir / "q");
    const io::checkpoint_tensor& a = *model.find("a");
    const sinq::packed_matrix* seen[2]{};
    std::thread other{[&] { seen[0] = &model.packed(a); }};
    seen[1] = &model.packed(a);
    other.join();
    CHECK(seen[0] == seen[1]);
    kept = model.packed(a);
    w = value_of(model.panels(a));
    model.release(a);
    CHECK(same_packed(model.packed(a), p));
  }
  CHECK(same_packed(kept, p));
  CHECK(same_packed(value_of(sinq::to_packed(w)), p));
}

TEST_CASE("panels that are not what their description says are refused by file, tensor and values") {
  const scratch dir;
  const fs::path path = dir / "q";
  const sinq::packed_matrix p = packed_of({.rows = 20, .cols = 70, .scale_bits = 6, .has_col_scale = true});
  const auto refused = [&](const std::string& from, const std::string& to, sinq::errc code,
                           std::vector<std::string> says) {
    write_both(path, p);
    edit(path, from, to);
    says.insert(says.end(), {path.string(), "tensor 'a'"});
    check_refused(path, code, says);
  };
  refused(R"(\"layout\":\"panels\")", R"(\"layout\":\"pandas\")", sinq::errc::unsupported,
          {"layout 'pandas'", "expected canonical or panels"});
  refused(R"(\"bits\":4)", R"(\"bits\":8)", sinq::errc::malformed, {"'a.sinq.codes'", "[2, 1024]", "[2, 2048]"});
  refused(R"(\"group_size\":64)", R"(\"group_size\":32)", sinq::errc::malformed,
          {"'a.sinq.scale'", "[2, 2, 16]", "[2, 3, 16]"});
  refused(R"(\"shape\":[20,70])", R"(\"shape\":[40,70])", sinq::errc::malformed,
          {"'a.sinq.codes'", "[2, 1024]", "[3, 1024]"});
  refused(R"(\"tile_rows\":0)", R"(\"tile_rows\":5)", sinq::errc::malformed,
          {"'a.sinq.codes'", "[2, 1024]", "[4, 1024]"});
  refused(R"(\"scale_bits\":6)", R"(\"scale_bits\":0)", sinq::errc::malformed,
          {"'a.sinq.scale'", "U8", "F16, BF16 or F32"});
  refused(R"(\"super_group\":0)", R"(\"super_group\":1)", sinq::errc::malformed,
          {"'a.sinq.scale_base'", "[2, 1, 16]", "[2, 2, 16]"});
  refused(R"(a.sinq.scale":{"dtype":"U8")", R"(a.sinq.scale":{"dtype":"I8")", sinq::errc::malformed,
          {"'a.sinq.scale'", "type I8", "expected U8"});
  refused(R"(a.sinq.zero":{"dtype":"F16")", R"(a.sinq.zero":{"dtype":"I16")", sinq::errc::malformed,
          {"'a.sinq.zero'", "type I16", "expected F16"});
  for (const std::string part : {"codes", "scale", "scale_base", "zero", "t"})
    refused("a.sinq." + part + "\"", "a.sinq." + part.substr(1) + "_\"", sinq::errc::malformed,
            {"'a.sinq." + part + "' is missing"});
  write_both(path, p);
  edit(path, R"(\"layout\":\"canonical\")", R"(\"layout\":   \"panels\")");
  check_refused(path, sinq::errc::malformed, {path.string(), "tensor 'b'", "'b.sinq.codes'", "[20, 40]", "[2, 1024]"});
}

TEST_CASE("panels are sharded as one tensor each, and count what is stored") {
  const scratch dir;
  const sinq::packed_matrix p = packed_of({.rows = 20, .cols = 100, .has_col_scale = true});
  const std::size_t bytes = io::stored_bytes(p.format, io::code_layout::panels);
  CHECK(bytes == value_of(sinq::to_panels(p)).size_bytes());
  CHECK(io::stored_bytes(p.format, io::code_layout::canonical) == p.size_bytes());
  auto to = value_of(io::model_writer::create_directory(dir / "out", {.shard_bytes = bytes, .file = {}}));
  require_ok(io::begin_checkpoint(to));
  for (const char* const name : {"a", "b"})
    require_ok(io::write_panels(to, name, value_of(sinq::to_panels(p)), sinq::dtype::f32));
  CHECK(to.total_bytes() == 2 * bytes);
  require_ok(to.commit());
  const auto model = open_checkpoint(dir / "out");
  CHECK(model.model().files().size() == 2);
  for (const io::checkpoint_tensor& tensor : model.tensors()) CHECK(same_packed(model.packed(tensor), p));
}
