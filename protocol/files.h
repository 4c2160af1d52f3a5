// Whole files, and requests and answers as msgpack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "protocol/value.h"

namespace pi0::protocol {

// A file that is written in parts and seen by nobody until it is whole, not even after a power cut: a temporary file of
// a random name beside it that takes its place. A symbolic link stays one, its target is replaced. What exists and
// cannot be replaced, a pipe or a character device or an open file of /proc, gets what is written at once; a pipe is
// waited for. All that throws is std::runtime_error that names the file.
class WholeFile {
 public:
  // Throws where it cannot be written, and for folders, sockets and disks. It has the permissions of the file that it
  // replaces, else those that the umask gives.
  explicit WholeFile(std::filesystem::path file);
  ~WholeFile();  // without keep(), what was there before stays
  WholeFile(const WholeFile&) = delete;
  WholeFile& operator=(const WholeFile&) = delete;

  void write(const void* data, std::size_t size);  // throws as on a full disk
  void keep();                                     // the last call; throws where the disk does not take it

 private:
  std::filesystem::path file_;
  std::filesystem::path target_;     // where links lead
  std::filesystem::path temporary_;  // empty: written in place
  int descriptor_ = -1;
};

// Removes the temporary files of this process, and from then on lets nobody make one: the process ends at once.
void remove_unfinished_files();

// A WholeFile of that content.
void write_whole(const std::filesystem::path& file, std::string_view content);
void write_whole(const std::filesystem::path& file, std::span<const std::uint8_t> content);

// Throws std::runtime_error when write_whole would: for output that comes at the end of long work. A pipe's reader sees
// nothing of it.
void check_writable(const std::filesystem::path& file);

// Both throw std::runtime_error that names the file. Sizes are not limited as the server's are, so
// that whatever it took can be read back.
Dict read_message(const std::filesystem::path& file);
void write_message(const std::filesystem::path& file, const Dict& message);

}  // namespace pi0::protocol
