#pragma once

#include "peers.hpp"

#include "measure/machine.hpp"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace sinq_bench {

/// One product that is timed: what multiplies how many tokens on how many threads.
struct product {
  const contender* by;
  std::size_t tokens, threads;
  double error; ///< relative, of the outputs that were checked
};

/// What was measured of a product; ratios are medians of the ratios of each round.
struct measured {
  product what;
  spread seconds;
  double bytes_rate = 0, products_rate = 0; ///< a second, of the median
  spread of_read{};                         ///< bytes a second of those that are read at most
  std::optional<spread> of_peak{};          ///< products a second of the fastest instructions' for that arithmetic
  std::optional<spread> of_one_token{};     ///< seconds, of those of one token
};

/// The limits in the same rounds, for one number of threads.
struct measured_limits {
  spread read;                         ///< bytes a second
  std::map<const peak*, spread> peaks; ///< products a second
};

struct report {
  std::vector<measured> rows;
  std::map<std::size_t, measured_limits> limits;

  [[nodiscard]] std::string to_string() const;
  [[nodiscard]] nlohmann::ordered_json to_json(const machine& on, std::size_t rows, std::size_t cols) const;
};

/// Times products and limits in the same rounds. @param weights  of a matrix
[[nodiscard]] report measure(const std::vector<product>& products, const common_flags& f, pools& threads,
                             double weights);

} // namespace sinq_bench
