// When a mapped file is truncated while it is read, the system sends SIGBUS, which cannot become a C++ exception.
#pragma once

namespace pi0::tools {

// From now on SIGBUS ends this program with exit code 1 and a line on stderr that names the file.
// `program` must outlive it.
void explain_bus_errors(const char* program);

}  // namespace pi0::tools
