#include "io/files.hpp"
#include "io/open_checkpoint.hpp"

#include "support/catch.hpp"
#include "support/packed.hpp"
#include "support/random_quantized.hpp"

#include <sinq/io/checkpoint.hpp>
#include <sinq/pack/pack.hpp>
#include <sinq/quant/quantize.hpp>

#include <cstdint>

using namespace sinq_test;
namespace io = sinq::io;

namespace {

sinq::packed_matrix make_packed(const matrix& m, const sinq::quantize_options& options = {}) {
  const auto q = sinq::quantize(m.view(), options);
  REQUIRE(q);
  auto p = sinq::pack(*q);
  REQUIRE(p);
  return *std::move(p);
}

void write(const fs::path& path, const std::vector<std::pair<std::string, sinq::packed_matrix>>& tensors) {
  auto to = io::model_writer::create_file(path);
  REQUIRE(to);
  REQUIRE(io::begin_checkpoint(*to));
  const std::vector<float> bias{1, 2, 3};
  REQUIRE(to->add("bias", sinq::dtype::f32, std::vector<std::size_t>{3}, std::as_bytes(std::span{bias})));
  for (const auto& [name, p] : tensors) REQUIRE(io::write_packed(*to, name, p, sinq::dtype::bf16));
  REQUIRE(to->commit());
}

} // namespace

TEST_CASE("a checkpoint reads back to the identical packed matrix, in place") {
  const scratch dir;
  for (const bool symmetric : {false, true})
    for (const sinq::aux_dtype aux : {sinq::aux_dtype::f16, sinq::aux_dtype::bf16, sinq::aux_dtype::f32})
      for (const sinq::method method : {sinq::method::rtn, sinq::method::sinq, sinq::method::sinq_nf3})
        for (const auto& [rows, cols] : ragged_shapes) {
          const auto a = make_packed(with_outliers(rows, cols, 3),
                                     {.method = method, .bits = 3, .aux = aux, .symmetric = symmetric});
          const auto b =
              make_packed(gaussian(rows, cols, 4, 1e9), {.method = sinq::method::sinq, .bits = 5, .aux = aux});
          write(dir / "q.safetensors", {{"a.weight", a}, {"b.weight", b}});
          const auto q = open_checkpoint(dir / "q.safetensors");
          REQUIRE(q.tensors().size() == 3);
          CHECK(q.is_quantized());
          const io::checkpoint_tensor* found = q.find("a.weight");
          REQUIRE(found != nullptr);
          CHECK(found->quantized);
          CHECK(found->type == sinq::dtype::bf16);
          CHECK(found->shape == std::vector<std::size_t>{rows, cols});
          CHECK(same_packed(q.packed(*found), a));
          CHECK(same_packed(q.packed(*q.find("b.weight")), b));
          for (const sinq::shared_bytes* part : {&q.packed(*found).codes, &q.packed(*found).scale})
            CHECK(reinterpret_cast<std::uintptr_t>(part->data()) % sinq::buffer_alignment_bytes == 0);
          CHECK_FALSE(q.find("bias")->quantized);
          CHECK(q.data(*q.find("bias")).size() == 12);
          q.release(*found);
          CHECK(same_packed(q.packed(*found), a)); // still readable
        }
}

TEST_CASE("every storage reads back to the identical packed matrix") {
  const scratch dir;
  for (const auto& [rows, cols] : ragged_shapes)
    for (const sinq::matrix_format& format : every_storage(rows, cols)) {
      const auto a = sinq::pack(random_quantized(format, rows));
      REQUIRE(a);
      write(dir / "q.safetensors", {{"a", *a}});
      const auto q = open_checkpoint(dir / "q.safetensors");
      CHECK(same_packed(q.packed(*q.find("a")), *a));
    }
}

TEST_CASE("version 1, whose descriptions say less, is read") {
  const scratch dir;
  const auto a = make_packed(gaussian(20, 70, 6));
  write(dir / "q.safetensors", {{"a", a}});
  edit(dir / "q.safetensors", R"("sinq.version":"2")", R"("sinq.version":"1")");
  for (const std::string field : {"tile_rows", "rotation", "scale_bits", "zero_bits", "super_group"})
    edit(dir / "q.safetensors", field, "x" + field.substr(1));
  const auto q = open_checkpoint(dir / "q.safetensors");
  CHECK(same_packed(q.packed(*q.find("a")), a));
}

TEST_CASE("a packed matrix outlives the checkpoint that it came from") {
  const scratch dir;
  const auto a = make_packed(gaussian(20, 70, 5));
  write(dir / "q.safetensors", {{"a", a}});
  sinq::packed_matrix kept;
  {
    const auto q = open_checkpoint(dir / "q.safetensors");
    kept = q.packed(*q.find("a"));
  }
  CHECK(same_packed(kept, a));
}

TEST_CASE("an ordinary file is a checkpoint without quantized tensors") {
  const scratch dir;
  auto to = io::model_writer::create_file(dir / "plain.safetensors");
  REQUIRE(to);
  const std::vector<float> data{1, 2};
  REQUIRE(to->add("x.sinq.codes", sinq::dtype::f32, std::vector<std::size_t>{2}, std::as_bytes(std::span{data})));
  REQUIRE(to->commit());
  const auto q = open_checkpoint(dir / "plain.safetensors");
  CHECK_FALSE(q.is_quantized());
  REQUIRE(q.tensors().size() == 1);
  CHECK(q.tensors()[0].name == "x.sinq.codes");
}

TEST_CASE("a sharded checkpoint is one model") {
  const scratch dir;
  io::model_writer_options options;
  options.shard_bytes = 4000;
  auto to = io::model_writer::create_directory(dir / "out", options);
  REQUIRE(to);
  REQUIRE(io::begin_checkpoint(*to));
  std::vector<sinq::packed_matrix> matrices;
  for (std::uint64_t n = 0; n < 5; ++n) {
    matrices.push_back(make_packed(gaussian(30, 128, n)));
    REQUIRE(io::write_packed(*to, "layer." + std::to_string(n), matrices.back(), sinq::dtype::f32));
  }
  REQUIRE(to->commit());
  CHECK(fs::exists(dir / "out/model.safetensors.index.json"));
  const auto q = open_checkpoint(dir / "out");
  CHECK(q.model().files().size() == 5);
  for (std::size_t n = 0; n < 5; ++n) CHECK(same_packed(q.packed(*q.find("layer." + std::to_string(n))), matrices[n]));
}

TEST_CASE("descriptions that lie are refused by file, tensor and values") {
  const scratch dir;
  const fs::path path = dir / "q.safetensors";
  const auto a = make_packed(gaussian(20, 70, 6));
  const auto fresh = [&] { write(path, {{"a.weight", a}}); };
  const std::string named = "tensor 'a.weight'";

  fresh();
  edit(path, R"("sinq.version":"2")", R"("sinq.version":"9")");
  check_refused(path, sinq::errc::unsupported, {path.string(), "'9'", "1 or 2"});
  fresh();
  edit(path, R"(\"bits\":4)", R"(\"bits\":7)");
  check_refused(path, sinq::errc::invalid_argument, {path.string(), named, "bits is 7"});
  fresh();
  edit(path, R"(\"bits\":4)", R"(\"bits\":8)");
  check_refused(path, sinq::errc::malformed, {path.string(), named, "a.weight.sinq.codes", "[20, 40]", "[20, 72]"});
  fresh();
  edit(path, R"(\"group_size\":64)", R"(\"group_size\":32)");
  check_refused(path, sinq::errc::malformed, {named, "a.weight.sinq.scale", "[20, 2]", "[20, 3]"});
  fresh();
  edit(path, R"(\"group_size\":64)", R"(\"group_size\":-4)");
  check_refused(path, sinq::errc::malformed, {named, "whole number", "-4"});
  fresh();
  edit(path, R"(\"group_size\":64)", R"(\"group_size\":00)");
  check_refused(path, sinq::errc::malformed, {named, "cannot be read"});
  fresh();
  edit(path, R"(\"shape\":[20,70])", R"(\"shape\":[20,71])");
  check_refused(path, sinq::errc::malformed, {named, "a.weight.sinq.t", "[70]", "[71]"});
  fresh();
  edit(path, "a.weight.sinq.zero\"", "a.weight.sinq.zer0\"");
  check_refused(path, sinq::errc::malformed, {named, "'a.weight.sinq.zero' is missing"});
  fresh();
  edit(path, R"(sinq.scale":{"dtype":"F16")", R"(sinq.scale":{"dtype":"I16")");
  check_refused(path, sinq::errc::malformed, {named, "a.weight.sinq.scale", "I16", "F16, BF16 or F32"});
  fresh();
  edit(path, R"(sinq.zero":{"dtype":"F16")", R"(sinq.zero":{"dtype":"I16")");
  check_refused(path, sinq::errc::malformed, {named, "a.weight.sinq.zero", "I16", "expected F16"});
  fresh();
  edit(path, R"(\"tile_rows\":0)", R"(\"tile_rows\":3)");
  check_refused(path, sinq::errc::malformed, {named, "a.weight.sinq.t", "[70]", "[7, 70]"});
  fresh();
  edit(path, R"(\"rotation\":0)", R"(\"rotation\":4)");
  check_refused(path, sinq::errc::invalid_argument, {named, "rotation", "4", "70 columns"});
  fresh();
  edit(path, R"(\"scale_bits\":0)", R"(\"scale_bits\":7)");
  check_refused(path, sinq::errc::invalid_argument, {named, "7 bits", "4, 5, 6 or 8"});
  fresh();
  edit(path, R"(\"scale_bits\":0)", R"(\"scale_bits\":6)");
  check_refused(path, sinq::errc::malformed, {named, "a.weight.sinq.scale"});
  fresh();
  edit(path, R"(\"dtype\":\"BF16\")", R"(\"dtype\":\"BOOL\")");
  check_refused(path, sinq::errc::malformed, {named, "'BOOL'"});
  fresh();
  edit(path, R"(\"grid\":\"uniform\")", R"(\"grid\":\"unicorn\")");
  check_refused(path, sinq::errc::unsupported, {named, "'unicorn'", "uniform"});
  fresh();
  edit(path, R"(\"layout\":\"canonical\")", R"(\"layout\":\"canonicle\")");
  check_refused(path, sinq::errc::unsupported, {path.string(), named, "layout 'canonicle'", "canonical or panels"});
  fresh();
  edit(path, R"(\"layout\":\"canonical\")", R"(\"layout\":[[[[[[[[[[[[[)");
  check_refused(path, sinq::errc::malformed, {named, "cannot be read"});
}

TEST_CASE("a description too long to be one is refused before it is parsed") {
  const scratch dir;
  auto to = io::model_writer::create_file(dir / "q.safetensors");
  REQUIRE(to);
  REQUIRE(io::begin_checkpoint(*to));
  REQUIRE(to->set_metadata("sinq.tensor.x", std::string(1 << 20, '[')));
  REQUIRE(to->commit());
  check_refused(dir / "q.safetensors", sinq::errc::malformed, {"tensor 'x'", "1048576 bytes", "4096"});
}

TEST_CASE("a tensor cannot be there plain and quantized") {
  const scratch dir;
  const auto a = make_packed(gaussian(4, 8, 7));
  auto to = io::model_writer::create_file(dir / "q.safetensors");
  REQUIRE(to);
  REQUIRE(io::begin_checkpoint(*to));
  REQUIRE(io::write_packed(*to, "a", a, sinq::dtype::f32));
  const std::vector<float> data{1, 2};
  REQUIRE(to->add("a", sinq::dtype::f32, std::vector<std::size_t>{2}, std::as_bytes(std::span{data})));
  REQUIRE(to->commit());
  check_refused(dir / "q.safetensors", sinq::errc::malformed, {"'a'", "plain and quantized"});
}

TEST_CASE("a plain tensor whose name looks like a part that is not there is kept") {
  const scratch dir;
  const auto a = make_packed(gaussian(4, 8, 8), {.method = sinq::method::rtn, .symmetric = true});
  auto to = io::model_writer::create_file(dir / "q.safetensors");
  REQUIRE(to);
  REQUIRE(io::begin_checkpoint(*to));
  REQUIRE(io::write_packed(*to, "a", a, sinq::dtype::f32));
  const std::vector<float> data{1, 2};
  REQUIRE(to->add("a.sinq.zero", sinq::dtype::f32, std::vector<std::size_t>{2}, std::as_bytes(std::span{data})));
  REQUIRE(to->commit());
  CHECK(open_checkpoint(dir / "q.safetensors").find("a.sinq.zero") != nullptr);
}
