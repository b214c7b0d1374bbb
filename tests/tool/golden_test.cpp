/// The golden vectors through the tool: quantize, dump, compare.

#include "golden/golden.hpp"
#include "tool/tool.hpp"

#include <sinq/io/model_reader.hpp>

using namespace sinq_test;

namespace {

void check_through_tool(const golden_case& c) {
  INFO(c.path.string());
  const scratch dir;
  const std::string input = (c.path.parent_path() / ("input_" + c.input + ".safetensors")).string();
  const std::string quantized = (dir / "q.safetensors").string();
  const std::string dumped = (dir / "d.safetensors").string();
  run_well({"quantize", input, "-o", quantized, "--method", c.method, "--bits", std::to_string(c.bits_or_iterations),
            "--group-size", std::to_string(c.group_size), "--aux-dtype", "f32"});
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
  CHECK(t.shape == std::vector{codes.shape[1]});
  check_against_golden(c, {codes.values, scale.values, zero.values, t.values});
}

} // namespace

TEST_CASE("rtn through the tool agrees with the official code") {
  for (const auto& folder : folders())
    for (const golden_case& c : cases(folder, "rtn")) check_through_tool(c);
}

TEST_CASE("sinq through the tool agrees with the official code") {
  for (const auto& folder : folders())
    for (const golden_case& c : cases(folder, "sinq")) check_through_tool(c);
}
