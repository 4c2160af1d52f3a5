// Limits how long OpenMP's threads spin while they wait for each other.
#pragma once

namespace pi0::tools {

// By default they spin for about a millisecond. Beside other programs that takes the CPU from the very threads they
// wait for. This shortens the time, unless GOMP_SPINCOUNT or OMP_WAIT_POLICY is set. libgomp reads these before main(),
// so the program replaces itself by a second start with the same arguments and process id. Programs that it starts do
// not inherit the setting. To be called first in main().
void shorten_openmp_spins(char** argv);

}  // namespace pi0::tools
