/// The golden vectors through the tool: quantize, dump, compare.

#include "golden/golden.hpp"
#include "tool/tool.hpp"

#include <sinq/io/model_reader.hpp>

using namespace sinq_test;

namespace {

void check_through_tool(const golden_case& c) {
  INFO(c.path.string());
  const scratch dir;
  const std::string input = c.input_path().string();
  const std::string quantized = (dir / "q.safetensors").string();
  const std::string dumped = (dir / "d.safetensors").string();
  // `x` of the input file is a sample of inputs: not to be quantized, but read by the methods that need one
  run_well({"quantize",
            input,
            "-o",
            quantized,
            "--exclude",
            "^x$",
            "--moments",
            input,
            "--method",
            c.quantizer(),
            "--bits",
            std::to_string(c.bits_or_iterations),
            c.square() ? "--tile" : "--group-size",
            std::to_string(c.group_size),
            "--aux-dtype",
            "f32",
            "--refine",
            "none",
            "--sinkhorn",
            "reference"});
  run_well({"dump", quantized, "-o", dumped});
  const auto model = value_of(sinq::io::model_reader::open(dumped));
  const read_tensor codes = read_one(model, "w.codes");
  const read_tensor scale = read_one(model, "w.scale");
  const std::size_t groups = (codes.shape[1] + c.group_size - 1) / c.group_size;
  CHECK(codes.type == sinq::dtype::u8);
  CHECK(scale.type == sinq::dtype::f32);
  CHECK(scale.shape == std::vector{codes.shape[0], groups});
  const read_tensor zero = read_one(model, "w.zero");
  CHECK(zero.shape == scale.shape);
  const read_tensor t = read_one(model, "w.t");
  const std::size_t tiles = (codes.shape[0] + c.tile_rows(codes.shape[0]) - 1) / c.tile_rows(codes.shape[0]);
  CHECK(t.shape == (tiles == 1 ? std::vector{codes.shape[1]} : std::vector{tiles, codes.shape[1]}));
  check_against_golden(c, {codes.values, scale.values, zero.values, t.values});
}

void check_all(std::string_view method) {
  for (const auto& folder : folders())
    for (const golden_case& c : cases(folder, method)) check_through_tool(c);
}

} // namespace

TEST_CASE("rtn through the tool agrees with the official code") {
  check_all("rtn");
}

TEST_CASE("sinq through the tool agrees with the official code") {
  check_all("sinq");
}

TEST_CASE("rtn and sinq in square tiles through the tool agree with the official code") {
  check_all("rtn_2d");
  check_all("sinq_2d");
}

TEST_CASE("nf4 and nf3 through the tool agree with the official code") {
  check_all("nf4");
  check_all("nf3");
}

TEST_CASE("sinq_nf4 and sinq_nf3 through the tool agree with the official code") {
  check_all("sinq_nf4");
  check_all("sinq_nf3");
}

TEST_CASE("hqq through the tool agrees with the official code") {
  check_all("hqq");
}

TEST_CASE("sinq_hqq through the tool agrees with the official code") {
  check_all("sinq_hqq");
}

TEST_CASE("sinq_noz through the tool agrees with the official code") {
  check_all("sinq_noz");
}

TEST_CASE("awq through the tool agrees with the official code") {
  check_all("awq");
}

TEST_CASE("asinq and asinq_l1 through the tool agree with the official code") {
  check_all("asinq");
  check_all("asinq_l1");
}
