#include "model/nearest_name.h"

#include <algorithm>
#include <cctype>
#include <numeric>
#include <utility>

namespace pi0::model {
namespace {

// Optimal string alignment distance.
std::size_t edit_distance(std::string_view word, std::string_view name) {
  std::vector<std::size_t> before_last, last(name.size() + 1), row(name.size() + 1);
  std::iota(last.begin(), last.end(), std::size_t{0});
  for (std::size_t i = 1; i <= word.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= name.size(); ++j) {
      const std::size_t wrong = word[i - 1] == name[j - 1] ? 0 : 1;
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + wrong});
      const bool swapped = i > 1 && j > 1 && word[i - 1] == name[j - 2] && word[i - 2] == name[j - 1];
      if (swapped) row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    before_last = std::exchange(last, row);
  }
  return last.back();
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  std::ranges::transform(text, lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

}  // namespace

std::string did_you_mean(std::string_view word, const std::vector<std::string>& known) {
  constexpr std::size_t longest = 100;  // the distance takes quadratic time
  if (word.size() > longest) return "";
  std::string_view best;
  std::size_t fewest = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& name : known) {
    const bool is_begun = word.size() >= 3 && name.starts_with(word);
    if (const std::size_t errors = is_begun ? 1 : edit_distance(lower_case(word), lower_case(name)); errors < fewest) {
      fewest = errors;
      best = name;
    }
  }
  return best.empty() ? "" : "; did you mean '" + std::string(best) + "'?";
}

}  // namespace pi0::model
