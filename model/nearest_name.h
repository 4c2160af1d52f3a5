// Suggests the known name that a misspelled one probably meant.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pi0::model {

// "; did you mean 'NAME'?" for the known name with the fewest typing errors: a wrong, missing or extra letter, or two
// letters swapped. Case is ignored, and the first three or more letters of a name count as one error. Empty if there
// are more errors than a third of the letters, or than one in a short word.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& known);

}  // namespace pi0::model
