#include "tools/common/option_checks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <stdexcept>
#include <system_error>

#include "model/nearest_name.h"

namespace pi0::tools {
namespace {

bool same_letter(char first, char second) {
  return std::tolower(static_cast<unsigned char>(first)) == std::tolower(static_cast<unsigned char>(second));
}

CLI::Validator number_check(std::string expected, std::string in_help, std::function<bool(double)> is_right) {
  const auto check = [expected = std::move(expected), is_right = std::move(is_right)](const std::string& text) {
    const char* const end = text.data() + text.size();
    double number = 0;
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    const bool is_number = error == std::errc() && rest == end && std::isfinite(number);
    return is_number && is_right(number) ? std::string() : fmt::format("found '{}', expected {}", text, expected);
  };
  return {check, std::move(in_help)};
}

}  // namespace

CLI::Validator positive() {
  return number_check("a number above 0", "POSITIVE", [](double number) { return number > 0; });
}

CLI::Validator whole() {
  const auto check = [](const std::string& text) {
    const char* const end = text.data() + text.size();
    std::uint64_t number = 0;
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    return error == std::errc() && rest == end ? std::string()
                                               : fmt::format("found '{}', expected a whole number from 0 to {}", text,
                                                             std::numeric_limits<std::uint64_t>::max());
  };
  return {check, "WHOLE"};
}

CLI::Validator between(double least, double most) {
  return number_check(fmt::format("a number from {} to {}", least, most), fmt::format("{} to {}", least, most),
                      [=](double number) { return number >= least && number <= most; });
}

CLI::Validator accepted_by(std::function<void(const std::string&)> parse) {
  const auto check = [parse = std::move(parse)](const std::string& text) -> std::string {
    try {
      parse(text);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  };
  return {check, ""};
}

CLI::Validator regular_file_or_none() {
  const auto check = [](const std::string& path) {
    std::error_code unknown;
    const auto type = std::filesystem::status(path, unknown).type();
    const bool is_right = type == std::filesystem::file_type::regular || type == std::filesystem::file_type::not_found;
    return is_right ? std::string()
                    : fmt::format("found '{}', which is no regular file, expected a file or a new name", path);
  };
  return {check, "FILE"};
}

CLI::Option* choose_meaning(CLI::Option* option, Meanings meanings, Letters letters) {
  std::vector<std::string> names;
  for (const auto& [name, meaning] : meanings) names.push_back(name);
  option->type_name(fmt::format("{}", fmt::join(names, "|")));
  const auto replace = [meanings = std::move(meanings), names, letters](std::string& word) {
    for (const auto& [name, meaning] : meanings) {
      const bool is_it = letters == Letters::any_case ? std::ranges::equal(word, name, same_letter) : word == name;
      if (!is_it) continue;
      word = meaning;
      return std::string();
    }
    return fmt::format("found '{}', expected {}{}", word, fmt::join(names, ", "), model::did_you_mean(word, names));
  };
  return option->transform(CLI::Validator(replace, ""));
}

CLI::Option* choose(CLI::Option* option, const std::vector<std::string>& names, Letters letters) {
  Meanings meanings;
  for (const std::string& name : names) meanings.emplace_back(name, name);
  return choose_meaning(option, std::move(meanings), letters);
}

}  // namespace pi0::tools
