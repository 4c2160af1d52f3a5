// The files of tools/report, embedded.
#pragma once

#include <string_view>

namespace pi0::tools {

std::string_view page_template();  // with {{title}}, {{style}}, {{heading}}, {{data}}, {{script}} in this order
std::string_view page_style();
std::string_view page_looks();  // JSON
std::string_view page_script();

}  // namespace pi0::tools
