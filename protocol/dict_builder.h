// A Dict in the making: set() does what Dict::set() does, but finds a key without comparing it with all others.
#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "protocol/value.h"

namespace pi0::protocol {

class DictBuilder {
 public:
  void set(const std::string& key, Value value) {
    const auto [index, is_new] = indices_.try_emplace(key, entries_.size());
    if (is_new) {
      entries_.emplace_back(key, std::move(value));
    } else {
      entries_[index->second].second = std::move(value);
    }
  }
  Dict take() { return Dict(std::move(entries_)); }  // the last call

 private:
  std::vector<Dict::Entry> entries_;
  std::unordered_map<std::string, std::size_t> indices_;  // of keys, in entries_
};

}  // namespace pi0::protocol
