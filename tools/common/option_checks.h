// Checks of option values, with their text for --help and an error that says what was found and what was expected.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tools/common/cli_fwd.h"

namespace pi0::tools {

CLI::Validator positive();                          // a number above zero
CLI::Validator whole();                             // of 64 bits, not negative
CLI::Validator between(double least, double most);  // a number, limits included

// A text that `parse` takes. It throws std::invalid_argument that says what is wrong.
CLI::Validator accepted_by(std::function<void(const std::string&)> parse);

CLI::Validator regular_file_or_none();  // a path where no folder, pipe or device is

// One of a few names. Help shows them as a|b|c.
enum class Letters { as_written, any_case };

// A text.
CLI::Option* choose(CLI::Option* option, const std::vector<std::string>& names, Letters letters = Letters::as_written);

// What each name stands for, as CLI11 reads it.
using Meanings = std::vector<std::pair<std::string, std::string>>;
CLI::Option* choose_meaning(CLI::Option* option, Meanings meanings, Letters letters = Letters::as_written);

// An enumeration, whose values CLI11 reads as numbers.
template <class Enum>
CLI::Option* choose_value(CLI::Option* option, const std::vector<std::pair<std::string, Enum>>& values) {
  Meanings meanings;
  for (const auto& [name, value] : values) meanings.emplace_back(name, std::to_string(static_cast<int>(value)));
  return choose_meaning(option, std::move(meanings));
}

}  // namespace pi0::tools
