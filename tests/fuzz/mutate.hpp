#pragma once

/// What the fuzz targets share: seeded damage to a text, and a check that stops the run.

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>

namespace sinq_test {

inline void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

/// Changes a text in one to four places: bits, bytes, pieces of JSON, numbers, cuts and repeats.
inline std::string mutate(std::string text, std::mt19937& random) {
  static constexpr std::string_view pieces[]{"{",
                                             "}",
                                             "[",
                                             "]",
                                             ",",
                                             ":",
                                             "\"",
                                             "\\",
                                             "null",
                                             "-1",
                                             "0",
                                             "1e9",
                                             "18446744073709551615",
                                             "\"shape\"",
                                             "\"data_offsets\":[0,8]",
                                             "\"__metadata__\":{}",
                                             "\\u0000",
                                             "\xff",
                                             "[[[[[[[[",
                                             "{\"a\":{\"a\":{\"a\":",
                                             "../",
                                             "U8"};
  const auto below = [&random](std::size_t n) { return random() % n; };
  for (std::size_t changes = 1 + below(4); changes > 0; --changes) {
    if (text.empty()) text = "{";
    const std::size_t at = below(text.size());
    switch (below(7)) {
    case 0: text[at] = static_cast<char>(text[at] ^ (1 << below(8))); break;
    case 1: text[at] = static_cast<char>(below(256)); break;
    case 2: text.insert(at, pieces[below(std::size(pieces))]); break;
    case 3: text.erase(at, 1 + below(8)); break;
    case 4: text.insert(below(text.size()), text.substr(at, 1 + below(60))); break;
    case 5: text.resize(at); break;
    default:
      if (const std::size_t digit = text.find_first_of("0123456789", at); digit != text.npos)
        text[digit] = static_cast<char>('0' + below(10));
    }
  }
  return text;
}

} // namespace sinq_test
