// What somebody who mistyped a name probably meant.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pi0::model {

// "; did you mean 'NAME'?" for the known name that is fewest typing errors away (a letter wrong, missing, too many, or
// two swapped; capitals do not count, and a name's beginning is one error), if that is not more than a third of the
// letters; else nothing.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& known);

}  // namespace pi0::model
