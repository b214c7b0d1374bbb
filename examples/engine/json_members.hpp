#pragma once

#include <sinq/core/error.hpp>
#include <sinq/io/json_file.hpp>

#include <string>
#include <string_view>

namespace engine {

/// The member of that name, null where there is none.
/// @errors  errc::malformed (not an object)
[[nodiscard]] inline sinq::result<const nlohmann::json*> member_of(const nlohmann::json& object, const char* name) {
  static const nlohmann::json none;
  if (!object.is_object())
    return sinq::make_error(sinq::errc::malformed, "is ", object.type_name(), ", expected an object");
  const auto found = object.find(name);
  return found == object.end() ? &none : &*found;
}

/// @errors  errc::malformed (missing, or not of that type; names the member). The same for the other readers here.
[[nodiscard]] inline sinq::result<std::string> text_of(const nlohmann::json& object, const char* name) {
  const auto value = member_of(object, name);
  if (!value) return value.error();
  if ((*value)->is_string()) return (*value)->get<std::string>();
  return sinq::make_error(sinq::errc::malformed, name, " is ", (*value)->type_name(), ", expected a string");
}

[[nodiscard]] inline sinq::result<bool> flag_of(const nlohmann::json& object, const char* name) {
  const auto value = member_of(object, name);
  if (!value) return value.error();
  if ((*value)->is_boolean()) return (*value)->get<bool>();
  return sinq::make_error(sinq::errc::malformed, name, " is ", (*value)->type_name(), ", expected true or false");
}

/// A flag that old files leave out.
[[nodiscard]] inline sinq::result<bool> flag_of(const nlohmann::json& object, const char* name, bool otherwise) {
  return object.is_object() && !object.contains(name) ? sinq::result<bool>{otherwise} : flag_of(object, name);
}

[[nodiscard]] inline sinq::result<const nlohmann::json*> list_of(const nlohmann::json& object, const char* name) {
  auto value = member_of(object, name);
  if (!value || (*value)->is_array()) return value;
  return sinq::make_error(sinq::errc::malformed, name, " is ", (*value)->type_name(), ", expected a list");
}

/// Calls visit for the parts of a Sequence, in order, up to the first that fails.
/// @param list  what the component calls them
template <class Visit>
[[nodiscard]] sinq::result<void> for_each_part(const nlohmann::json& sequence, const char* list, Visit&& visit) {
  const auto parts = list_of(sequence, list);
  if (!parts) return parts.error();
  for (const nlohmann::json& part : **parts)
    if (sinq::result<void> ok = visit(part); !ok) return ok;
  return {};
}

[[nodiscard]] inline sinq::error unsupported_type(std::string_view type, std::string_view expected) {
  return sinq::make_error(sinq::errc::unsupported, "has the type ", sinq::io::in_quotes(type), ", expected ", expected);
}

} // namespace engine
