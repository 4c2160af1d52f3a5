// Limits how long OpenMP's threads spin while they wait for each other.
#pragma once

namespace pi0::tools {

// By default they spin for about a millisecond. Beside other programs that takes the CPU from the very threads they
// wait for. A program that links this shortens the time, unless GOMP_SPINCOUNT or OMP_WAIT_POLICY is set. libgomp reads
// these when it is loaded, so the program replaces itself by a second start with the same arguments and process id,
// before libraries are set up. This forgets the setting, so that programs which it starts do not inherit it. To be
// called first in main().
void forget_openmp_spins();

}  // namespace pi0::tools
