// How long OpenMP's threads spin while they wait for each other.
#pragma once

namespace pi0::tools {

// By default about a millisecond, which takes the CPU from those they wait for where other programs run. This shortens
// it, unless GOMP_SPINCOUNT or OMP_WAIT_POLICY say how long. libgomp reads that before main() runs, so the program
// starts a second time, with the same arguments and number; programs that it starts see nothing of it. For the
// beginning of main().
void shorten_openmp_spins(char** argv);

}  // namespace pi0::tools
