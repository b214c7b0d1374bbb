#pragma once

#include "config.hpp"

#include <concepts>
#include <cstdio>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace sinq {

/// What went wrong, for programs; the sentence for people is in `error::message`.
enum class errc {
  invalid_argument,  ///< an option or shape that the function does not accept
  empty_matrix,      ///< a matrix without rows or columns
  non_finite,        ///< NaN or infinity in the weights; the message names the first row and column
  not_representable, ///< a value that the chosen storage type cannot hold
  io,                ///< the operating system refused; the message has its reason
  malformed,         ///< a file that breaks its own format
  unsupported,       ///< a valid file or option that this version does not read
  not_found,         ///< no such tensor or file
  cancelled,         ///< the progress callback asked to stop
  device,            ///< the GPU or its driver refused; the message has its reason
};

/// Name of an error code, as in `errc::malformed` -> "malformed file".
[[nodiscard]] constexpr std::string_view to_string(errc code) {
  switch (code) {
  case errc::invalid_argument: return "invalid argument";
  case errc::empty_matrix: return "empty matrix";
  case errc::non_finite: return "non-finite value";
  case errc::not_representable: return "not representable";
  case errc::io: return "input/output error";
  case errc::malformed: return "malformed file";
  case errc::unsupported: return "unsupported";
  case errc::not_found: return "not found";
  case errc::cancelled: return "cancelled";
  case errc::device: return "device error";
  }
  return "unknown error";
}

/// A failed operation: a code, and a sentence that carries the offending values.
struct error {
  errc code = errc::invalid_argument;
  std::string message;

  /// The same error with `where` and a colon put before its sentence, as a file or tensor name.
  [[nodiscard]] error in(std::string_view where) && {
    message.insert(0, std::string{where} + ": ");
    return std::move(*this);
  }
};

namespace detail {

/// What `result` is with and without a value: the choice between a T and an `error`.
template <class T>
class result_base {
public:
  explicit result_base(T value) : state_{std::in_place_index<0>, std::move(value)} {}
  explicit result_base(sinq::error failure) : state_{std::in_place_index<1>, std::move(failure)} {}

  [[nodiscard]] bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  [[nodiscard]] sinq::error& error() & {
    SINQ_ASSERT(!has_value());
    return *std::get_if<1>(&state_);
  }
  [[nodiscard]] const sinq::error& error() const& {
    SINQ_ASSERT(!has_value());
    return *std::get_if<1>(&state_);
  }
  [[nodiscard]] sinq::error&& error() && { return std::move(error()); }

protected:
  std::variant<T, sinq::error> state_;
};

} // namespace detail

/// Either a value or an `error`; the shape of C++23's std::expected, for what can fail because of the outside.
/// Access to the side that is not there is a broken precondition (SINQ_ASSERT).
template <class T>
class [[nodiscard]] result : public detail::result_base<T> {
public:
  using value_type = T;

  result(T value) : detail::result_base<T>{std::move(value)} {}
  result(sinq::error failure) : detail::result_base<T>{std::move(failure)} {}

  [[nodiscard]] T& value() & {
    SINQ_ASSERT(this->has_value());
    return *std::get_if<0>(&this->state_);
  }
  [[nodiscard]] const T& value() const& {
    SINQ_ASSERT(this->has_value());
    return *std::get_if<0>(&this->state_);
  }
  [[nodiscard]] T&& value() && { return std::move(value()); }
  [[nodiscard]] T& operator*() & { return value(); }
  [[nodiscard]] const T& operator*() const& { return value(); }
  [[nodiscard]] T&& operator*() && { return std::move(value()); }
  [[nodiscard]] T* operator->() { return &value(); }
  [[nodiscard]] const T* operator->() const { return &value(); }
};

/// Success without a value, or an `error`.
template <>
class [[nodiscard]] result<void> : public detail::result_base<std::monostate> {
public:
  using value_type = void;

  result() : detail::result_base<std::monostate>{std::monostate{}} {}
  result(sinq::error failure) : detail::result_base<std::monostate>{std::move(failure)} {}
};

namespace detail {

inline void append(std::string& to, std::string_view text) {
  to.append(text);
}
inline void append(std::string& to, const char* text) {
  to.append(text);
}
inline void append(std::string& to, const std::string& text) {
  to.append(text);
}
inline void append(std::string& to, char c) {
  to.push_back(c);
}
template <std::integral Number>
void append(std::string& to, Number value) {
  to.append(std::to_string(value));
}
inline void append(std::string& to, double value) {
  char text[32];
  to.append(text, static_cast<std::size_t>(std::snprintf(text, sizeof text, "%.9g", value)));
}

} // namespace detail

/// An error whose sentence is the given pieces, text and numbers, one after the other.
template <class... Pieces>
[[nodiscard]] error make_error(errc code, const Pieces&... pieces) {
  error failure{code, {}};
  (detail::append(failure.message, pieces), ...);
  return failure;
}

} // namespace sinq
