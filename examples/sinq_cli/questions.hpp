#pragma once

#include <sinq/core/error.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace sinq_cli {

/// A multiple choice question.
struct question {
  std::size_t line = 0; ///< of its file, from 1
  std::string context;
  std::vector<std::string> choices;
  std::size_t gold = 0; ///< the number of the right choice, from 0
};

/// Reads questions from a JSON Lines file: on each line that is not blank an object with a text `query` (or `context`,
/// `question`, `ctx`), a list of texts `choices` (or `endings`), and the number of the right one, from 0, `gold` (or
/// `answer`, `label`), which may be a text of digits. Of several names the first counts; other members are ignored.
/// @param most  questions, or 0 for all
/// @errors      those of mapped_file::open and parse_json_object; errc::malformed (a member that is missing or of
///              another type, fewer than two choices, an empty one, a number of none), errc::invalid_argument (no
///              question); every message names the file, and all that are of a line the line
[[nodiscard]] sinq::result<std::vector<question>> read_questions(const std::string& path, std::size_t most);

} // namespace sinq_cli
