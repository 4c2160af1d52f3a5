// A text as one word of a POSIX shell's command.
#pragma once

#include <string>

namespace pi0::tools {

// Quoted where the shell would read it otherwise.
std::string shell_word(const std::string& text);

}  // namespace pi0::tools
