#include "io/files.hpp"
#include "support/catch.hpp"

#include <sinq/core/convert.hpp>
#include <sinq/io/model_writer.hpp>
#include <sinq/io/moments.hpp>

#include <limits>

using namespace sinq_test;

namespace {

struct part {
  std::string name;
  std::vector<std::size_t> shape;
  std::vector<float> values;
  sinq::dtype type = sinq::dtype::f32;
};

fs::path make(const fs::path& path, const std::vector<part>& parts) {
  auto to = value_of(sinq::io::model_writer::create_file(path));
  for (const part& p : parts) {
    std::string bytes(p.values.size() * size_bytes(p.type), '\0');
    if (info(p.type).is_float) sinq::store_floats(p.values, p.type, reinterpret_cast<sinq::byte*>(bytes.data()));
    require_ok(to.add(p.name, p.type, p.shape, as_bytes(bytes), 1));
  }
  require_ok(to.commit());
  return path;
}

void refused(const std::vector<part>& parts, sinq::errc code, std::string_view says) {
  const scratch dir;
  const auto file = value_of(sinq::io::moments_file::open(make(dir / "m.safetensors", parts)));
  const auto found = file.find("a.weight");
  REQUIRE_FALSE(found);
  INFO(found.error().message);
  CHECK(found.error().code == code);
  CHECK(found.error().message.find("m.safetensors: ") != std::string::npos);
  CHECK(found.error().message.find(says) != std::string::npos);
}

} // namespace

TEST_CASE("moments are found under the layer's name, in any floating type") {
  const scratch dir;
  const auto file = value_of(sinq::io::moments_file::open(
      make(dir / "m.safetensors", {{"a.b.second_moment", {2}, {1, 4}},
                                   {"a.b.mean_abs", {2}, {0.5f, 1.5f}, sinq::dtype::bf16},
                                   {"a.b.hessian", {2, 2}, {1, 2, 2, 4}, sinq::dtype::f64},
                                   {"a.b.inputs", {3, 2}, {1, 2, 3, 4, 5, 6}, sinq::dtype::f16},
                                   {"c.mean_abs", {1}, {7}},
                                   {"mean_abs", {3}, {1, 2, 3}},
                                   {"x", {1, 3}, {4, 5, 6}}})));
  const auto full = value_of(file.find("a.b.weight"));
  CHECK(full.second_moment == std::vector<float>{1, 4});
  CHECK(full.mean_abs == std::vector<float>{0.5f, 1.5f});
  CHECK(full.hessian(0, 1) == 2);
  CHECK(full.inputs.rows() == 3);
  CHECK(full.inputs(2, 1) == 6);
  CHECK(value_of(file.find("c")).mean_abs == std::vector<float>{7});
  const auto plain = value_of(file.find("w"));
  CHECK(plain.mean_abs == std::vector<float>{1, 2, 3});
  CHECK(plain.inputs(0, 2) == 6);
  for (const char* unknown : {"a.weight", "weight", "b.weight", "", ".weight", "a.b.mean_abs"}) {
    const auto none = file.find(unknown);
    REQUIRE_FALSE(none);
    CHECK(none.error().code == sinq::errc::not_found);
  }
}

TEST_CASE("moments that are written are found again, and no part that is not there") {
  const scratch dir;
  sinq::input_moments::row_major sample(3, 2);
  sample << 1, -2, 0.5f, 4, -1.5f, 0.25f;
  const auto all = sinq::input_moments::of(sample);
  sinq::input_moments some;
  some.mean_abs = {3, 1, 2};
  auto to = value_of(sinq::io::safetensors_writer::create(dir / "m.safetensors"));
  require_ok(sinq::io::write_moments(to, "a.b", all));
  require_ok(sinq::io::write_moments(to, "c", some));
  CHECK_FALSE(sinq::io::write_moments(to, "c", some));
  require_ok(to.commit());
  const auto file = value_of(sinq::io::moments_file::open(dir / "m.safetensors"));
  const auto found = value_of(file.find("a.b.weight"));
  CHECK(found.second_moment == all.second_moment);
  CHECK(found.mean_abs == all.mean_abs);
  CHECK(found.hessian == all.hessian);
  CHECK(found.inputs == all.inputs);
  const auto few = value_of(file.find("c.weight"));
  CHECK(few.mean_abs == some.mean_abs);
  CHECK((few.second_moment.empty() && few.hessian.size() == 0 && few.inputs.size() == 0));
}

TEST_CASE("moments that make no sense are refused, naming file and tensor") {
  using sinq::errc;
  refused({{"a.mean_abs", {2, 1}, {1, 2}}}, errc::malformed, "tensor 'a.mean_abs': has shape [2, 1]");
  refused({{"a.mean_abs", {}, {1}}}, errc::malformed, "has shape []");
  refused({{"a.mean_abs", {0}, {}}}, errc::malformed, "has shape [0]");
  refused({{"a.hessian", {4}, {1, 2, 3, 4}}}, errc::malformed, "has shape [4], expected [columns, columns]");
  refused({{"a.hessian", {2, 1}, {1, 2}}}, errc::malformed, "has shape [2, 1]");
  refused({{"a.inputs", {0, 2}, {}}}, errc::malformed, "has shape [0, 2], expected [tokens, columns]");
  refused({{"a.mean_abs", {2}, {1, 2}}, {"a.inputs", {1, 3}, {1, 2, 3}}}, errc::malformed, "are for 2 columns");
  refused({{"a.mean_abs", {3}, {0, 0, 0}, sinq::dtype::u8}}, errc::malformed, "is U8, expected a floating type");
  refused({{"a.mean_abs", {2}, {1, -2}}}, errc::non_finite, "mean_abs holds -2 at column 1");
  refused({{"a.second_moment", {1}, {std::numeric_limits<float>::infinity()}}}, errc::non_finite, "second_moment");
  refused({{"a.inputs", {1, 2}, {1, std::nanf("")}}}, errc::non_finite, "inputs holds nan at column 1");
  refused({{"a.hessian", {2, 2}, {1, 0, 0, -1}}}, errc::non_finite, "hessian's diagonal");
  refused({{"b.mean_abs", {1}, {1}}}, errc::not_found, "has no a.second_moment");
  CHECK(sinq::io::moments_file::open("/nowhere/m.safetensors").error().code == errc::not_found);
}
