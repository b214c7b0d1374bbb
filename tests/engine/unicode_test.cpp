#include "support/catch.hpp"

#include <engine/byte_alphabet.hpp>
#include <engine/unicode.hpp>

#include <set>

using engine::replace_broken_utf8;

TEST_CASE("each maximal subpart of broken UTF-8 becomes one U+FFFD") {
  using namespace std::string_view_literals;
  CHECK(replace_broken_utf8("").empty());
  CHECK(replace_broken_utf8("a\0é漢😀"sv) == "a\0é漢😀"sv);
  // Unicode 15, tables 3-8 to 3-11
  CHECK(replace_broken_utf8("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41") ==
        "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41");
  CHECK(replace_broken_utf8("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41") ==
        "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41");
  CHECK(replace_broken_utf8("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42") ==
        "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41\uFFFD\uFFFD\x42");
  CHECK(replace_broken_utf8("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41") == "\uFFFD\uFFFD\uFFFD\uFFFD\x41");
}

TEST_CASE("an unfinished character is seen at the end of a text and nowhere else") {
  CHECK(engine::cut_utf8("") == 0);
  CHECK(engine::cut_utf8("a") == 0);
  CHECK(engine::cut_utf8("漢") == 0);
  CHECK(engine::cut_utf8("a\xe6") == 1);
  CHECK(engine::cut_utf8("a\xe6\xbc") == 2);
  CHECK(engine::cut_utf8("\xf0\x9f\x98") == 3);
  CHECK(engine::cut_utf8("\x80\x80") == 0);
  CHECK(engine::cut_utf8("\xe6\xbc\xa2\xa2") == 0);
  CHECK(engine::cut_utf8("\xc0") == 0);
  CHECK(engine::cut_utf8("\xed\xa0") == 0);
}

TEST_CASE("text is composed, and its spaces and words are those of Unicode") {
  CHECK(engine::to_nfc("plain") == "plain");
  CHECK(engine::to_nfc("A\u030a e\u0301 \u212b \u1100\u1161\u11a8") == "\u00c5 \u00e9 \u00c5 \uac01");
  CHECK(engine::to_nfc("q\u0307\u0323") == "q\u0323\u0307");
  CHECK(engine::to_nfc("a\u0301\u0323\u1f82\U0001d15f") == "\u1ea1\u0301\u1f82\U0001d158\U0001d165");
  std::string below, above, marks;
  for (int i = 0; i < 50'000; ++i) below += "\u0323", above += "\u0307", marks += "\u0307\u0323";
  CHECK(engine::to_nfc("-" + marks) == "-" + below + above);
  CHECK(engine::spaces_at_start(" \t\u3000\u00a0x ") == 7);
  CHECK(engine::spaces_at_end(" x\u2028\u0085\n") == 6);
  CHECK(engine::spaces_at_end("\n\n") == 2);
  CHECK(engine::spaces_at_start("\u180ex") == 0);
  CHECK(engine::spaces_at_start("") == 0);
  for (const char* word : {"a", "_", "9", "漢", "\u0301", "\u200d", "\u24d0", "\u2160"}) {
    CAPTURE(word);
    CHECK(engine::starts_with_word(word));
    CHECK(engine::ends_with_word(std::string{"- "} + word));
  }
  for (const char* other : {"", "-", " ", "²", "½", "😀", "\u200b"}) {
    CAPTURE(other);
    CHECK_FALSE(engine::starts_with_word(other));
    CHECK_FALSE(engine::ends_with_word(other));
  }
}

TEST_CASE("every byte has a letter of its own, and other characters spell nothing") {
  std::set<std::string> spelled;
  for (int b = 0; b < 256; ++b) {
    const std::string byte(1, static_cast<char>(b));
    spelled.insert(engine::spell_bytes(byte));
    CHECK(engine::spelled_bytes(engine::spell_bytes(byte)) == byte);
  }
  CHECK(spelled.size() == 256);
  CHECK(engine::spell_bytes(" the\n") == "ĠtheĊ");
  for (const char* other : {" ", "\n", "\u00a0", "\u00ad", "\u0144", "漢", "a😀"})
    CHECK_FALSE(engine::spelled_bytes(other));
}
