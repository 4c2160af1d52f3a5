// Preloaded, a program that starts itself again and again: LibTorch registers its operators before main() begins, for
// 0.15 s of CPU time, and the tests start thousands of programs. Each message on standard input, a socket, has the
// words of a command line, each with its zero byte, and the three standard streams. A copy of this process runs main()
// with them, as a child of the process that started this one; the answer is its id.
#include <dlfcn.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

using Main = int (*)(int, char**, char**);
using Streams = std::array<int, 3>;
Main program_main = nullptr;

void close_all(const Streams& streams) {
  for (const int stream : streams) ::close(stream);
}

int run_program(char* words, std::size_t length, const Streams& streams) {
  for (int i = 0; i < 3; ++i) ::dup2(streams[i], i);
  close_all(streams);
  std::vector<char*> arguments;
  for (char* word = words; word != words + length; word += std::strlen(word) + 1) arguments.push_back(word);
  arguments.push_back(nullptr);
  return program_main(static_cast<int>(arguments.size()) - 1, arguments.data(), environ);
}

int serve(int, char**, char**) {
  ::unsetenv("LD_PRELOAD");
  std::vector<char> words(1 << 17);  // the most that a command line may have
  while (true) {
    Streams streams;
    iovec text = {words.data(), words.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof streams)> control;
    msghdr message = {};
    message.msg_iov = &text;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t length = ::recvmsg(STDIN_FILENO, &message, MSG_CMSG_CLOEXEC);
    if (length <= 0) return 0;
    std::memcpy(streams.data(), CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof streams);
    const auto child = static_cast<pid_t>(::syscall(SYS_clone, CLONE_PARENT | SIGCHLD, nullptr, nullptr, nullptr, 0));
    if (child == 0) return run_program(words.data(), static_cast<std::size_t>(length), streams);
    close_all(streams);
    ::send(STDIN_FILENO, &child, sizeof child, MSG_NOSIGNAL);
  }
}

}  // namespace

extern "C" int __libc_start_main(Main main, int argc, char** argv, void (*init)(), void (*fini)(), void (*unload)(),
                                 void* stack_end) {
  program_main = main;
  const auto start = reinterpret_cast<decltype(&__libc_start_main)>(::dlsym(RTLD_NEXT, "__libc_start_main"));
  return start(serve, argc, argv, init, fini, unload, stack_end);
}
