#include "support/catch.hpp"

#include <sinq/core/error.hpp>

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>

using sinq::errc;
using sinq::make_error;
using sinq::result;

TEST_CASE("a result holds a value or an error") {
  const result<int> good = 7;
  CHECK(good.has_value());
  CHECK(static_cast<bool>(good));
  CHECK(*good == 7);
  CHECK(good.value() == 7);

  const result<int> bad = make_error(errc::malformed, "no");
  CHECK_FALSE(bad.has_value());
  CHECK_FALSE(static_cast<bool>(bad));
  CHECK(bad.error().code == errc::malformed);
  CHECK(bad.error().message == "no");
}

TEST_CASE("a result moves what cannot be copied") {
  result<std::unique_ptr<int>> owner = std::make_unique<int>(3);
  const std::unique_ptr<int> taken = *std::move(owner);
  CHECK(*taken == 3);
}

TEST_CASE("a result's value is reached and changed through the arrow") {
  result<std::string> text = std::string{"ab"};
  text->push_back('c');
  *text += "d";
  CHECK(text->size() == 4);
  CHECK(std::as_const(text)->substr(2) == "cd");
}

TEST_CASE("an error can itself be passed on to a result of another type") {
  result<int> inner = make_error(errc::io, "gone");
  const result<std::string> outer = std::move(inner).error();
  CHECK(outer.error().code == errc::io);
  CHECK(outer.error().message == "gone");
}

TEST_CASE("a result of void is success unless it has an error") {
  const result<void> good;
  CHECK(good.has_value());
  const result<void> bad = make_error(errc::cancelled, "stop");
  CHECK_FALSE(bad);
  CHECK(bad.error().code == errc::cancelled);
}

TEST_CASE("an error's sentence carries its values") {
  const std::string name = "W.weight";
  const std::string_view dtype = "BF16";
  const sinq::error failure =
      make_error(errc::invalid_argument, name, " is ", dtype, ' ', std::uint8_t{3}, 'x', -5, ", not ", 0.5f);
  CHECK(failure.message == "W.weight is BF16 3x-5, not 0.5");
}

TEST_CASE("numbers in an error's sentence are exact at their limits") {
  CHECK(make_error(errc::io, std::numeric_limits<std::uint64_t>::max()).message == "18446744073709551615");
  CHECK(make_error(errc::io, std::numeric_limits<std::int64_t>::min()).message == "-9223372036854775808");
  CHECK(make_error(errc::io, std::numeric_limits<float>::max()).message == "3.40282347e+38");
  CHECK(make_error(errc::io, -std::numeric_limits<double>::infinity()).message == "-inf");
  CHECK(make_error(errc::io, 1e-300).message == "1e-300");
}

TEST_CASE("an error says where it happened, outermost first") {
  sinq::error failure = make_error(errc::not_found, "no such tensor");
  failure = std::move(failure).in("w.q");
  failure = std::move(failure).in("model.safetensors");
  CHECK(failure.message == "model.safetensors: w.q: no such tensor");
  CHECK(failure.code == errc::not_found);
}

TEST_CASE("every error code has a name of its own") {
  const errc codes[] = {
      errc::invalid_argument, errc::empty_matrix, errc::non_finite, errc::not_representable, errc::io,
      errc::malformed,        errc::unsupported,  errc::not_found,  errc::cancelled,         errc::device};
  for (const errc a : codes) {
    CHECK(to_string(a) != "unknown error");
    for (const errc b : codes) CHECK((a == b) == (to_string(a) == to_string(b)));
  }
  CHECK(to_string(static_cast<errc>(1000)) == "unknown error");
}
