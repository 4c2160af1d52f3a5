// Files that are written completely or not at all, and requests and answers as msgpack files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "protocol/value.h"

namespace pi0::protocol {

// A file that is written in parts and appears under its name only when it is complete, even after a power cut: the
// parts go to a temporary file with a random name in the same folder, which keep() renames. A symbolic link stays; its
// target is replaced. Pipes, character devices and open files under /proc are written in place instead; the constructor
// waits a second for a pipe's reader. Everything throws std::runtime_error that names the file.
class WholeFile {
 public:
  // Throws when the file cannot be written, and for folders, sockets and block devices. The new file has the
  // permissions of the one it replaces, otherwise those of the umask.
  explicit WholeFile(std::filesystem::path file);
  ~WholeFile();  // without keep() the old file stays
  WholeFile(const WholeFile&) = delete;
  WholeFile& operator=(const WholeFile&) = delete;

  void write(const void* data, std::size_t size);  // throws when the disk is full, for example
  void keep();                                     // the last call; throws when the data did not reach the disk

 private:
  std::filesystem::path file_;
  std::filesystem::path target_;     // file_ with its links resolved
  std::filesystem::path temporary_;  // empty: written in place
  int descriptor_ = -1;
};

// Removes this process's temporary files. Other threads that then create, rename or remove one block forever: call it
// only right before the process ends.
void remove_unfinished_files();

// Writes a WholeFile.
void write_whole(const std::filesystem::path& file, std::string_view content);
void write_whole(const std::filesystem::path& file, std::span<const std::uint8_t> content);

// Throws std::runtime_error when write_whole() would. Call it before long work whose output goes there. A pipe is not
// opened, so its reader notices nothing.
void check_writable(const std::filesystem::path& file);

// Both throw std::runtime_error that names the file. Unlike the server they have no limit of size, so that every
// recorded request can be read back.
Dict read_message(const std::filesystem::path& file);
void write_message(const std::filesystem::path& file, const Dict& message);

}  // namespace pi0::protocol
