#pragma once

#include "../pack/layout.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace sinq::io {

/// Packed matrices that are made of something else when they are asked for. Copies share them; calls from several
/// threads are safe.
class packed_cache {
public:
  /// The matrix of that name, from `make` if it is not there yet; stays where it is until it is released. It is made
  /// without a lock, so that `make` may wait for threads that ask too: of two that are made at once one is kept.
  /// @param make  called without arguments, gives a packed_matrix
  template <class Make>
  [[nodiscard]] const packed_matrix& find_or_make(const std::string& name, Make&& make) const {
    if (const packed_matrix* const found = find(name); found != nullptr) return *found;
    packed_matrix made = make();
    const std::scoped_lock lock{state_->access};
    return state_->by_name.try_emplace(name, std::move(made)).first->second;
  }
  void release(const std::string& name) const {
    const std::scoped_lock lock{state_->access};
    state_->by_name.erase(name);
  }

private:
  [[nodiscard]] const packed_matrix* find(const std::string& name) const {
    const std::scoped_lock lock{state_->access};
    const auto at = state_->by_name.find(name);
    return at == state_->by_name.end() ? nullptr : &at->second;
  }

  struct state {
    std::mutex access;
    std::map<std::string, packed_matrix> by_name;
  };
  std::shared_ptr<state> state_ = std::make_shared<state>();
};

} // namespace sinq::io
