#include "tools/closed_loop/command_template.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <re2/re2.h>

#include <array>
#include <stdexcept>
#include <vector>

#include "tools/common/shell_word.h"

namespace pi0::tools {

std::string fill_command(const std::string& command, const std::map<std::string, std::string>& values) {
  // A doubled brace, the shell's ${name}, or {name}.
  static const RE2 special(R"(\{\{|\}\}|\$\{[^}]*\}|\{([a-z_]+)\})");
  std::string filled;
  re2::StringPiece rest(command);
  std::array<re2::StringPiece, 2> found;  // the match, the name
  while (special.Match(rest, 0, rest.size(), RE2::UNANCHORED, found.data(), found.size())) {
    filled.append(rest.data(), found[0].data());
    const std::string match(found[0]), name(found[1]);
    if (match == "{{" || match == "}}") {
      filled += match[0];
    } else if (name.empty()) {
      filled += match;
    } else if (const auto value = values.find(name); value != values.end()) {
      filled += shell_word(value->second);
    } else {
      std::vector<std::string> names;
      for (const auto& [known, unused] : values) names.push_back("{" + known + "}");
      throw std::invalid_argument(fmt::format("found {} in '{}', expected {}; {{{{ is a literal brace", match, command,
                                              fmt::join(names, ", ")));
    }
    rest.remove_prefix(static_cast<std::size_t>(found[0].data() + found[0].size() - rest.data()));
  }
  return filled.append(rest.data(), rest.size());
}

}  // namespace pi0::tools
