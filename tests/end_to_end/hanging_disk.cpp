// Preloaded, a disk that hangs: what waits for it waits until somebody reads the pipe $HANGING_DISK, while there is
// one.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

extern "C" int fsync(int descriptor) {
  const int pipe = ::open(std::getenv("HANGING_DISK"), O_WRONLY | O_CLOEXEC);
  if (pipe >= 0) ::close(pipe);
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}
