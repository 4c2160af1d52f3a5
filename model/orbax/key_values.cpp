#include "model/orbax/key_values.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "model/checkpoint_error.h"
#include "model/orbax/array_folders.h"
#include "model/orbax/ocdbt.h"

namespace pi0::orbax {

using model::CheckpointError;

File::File(std::filesystem::path path)
    : path_(std::move(path)), descriptor_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
  struct stat status {};
  if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0) {
    const int reason = errno;
    if (descriptor_ >= 0) ::close(descriptor_);
    throw CheckpointError(path_.string() + ": cannot be opened: " + std::strerror(reason));
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    throw CheckpointError(path_.string() + ": is not a file");
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
}

File::~File() { ::close(descriptor_); }

void File::read(std::uint64_t offset, std::span<std::byte> target) const {
  while (!target.empty()) {
    const ssize_t got = ::pread(descriptor_, target.data(), target.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw CheckpointError(path_.string() + ": cannot be read: " + std::strerror(errno));
    if (got == 0) throw CheckpointError(path_.string() + ": ends at byte " + std::to_string(offset));
    target = target.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

Value::Value(std::string where, std::string bytes)
    : where_(std::move(where)), bytes_(std::move(bytes)), size_(bytes_.size()) {}

Value::Value(const std::string& key, std::shared_ptr<const File> file, std::uint64_t offset, std::uint64_t size)
    : where_(file->path().string() + ": '" + key + "'"), file_(std::move(file)), offset_(offset), size_(size) {
  if (offset > file_->size() || size > file_->size() - offset) {
    throw CheckpointError(where_ + ": is " + std::to_string(size) + " bytes at byte " + std::to_string(offset) +
                          ", but the file has " + std::to_string(file_->size()) + "; is it complete?");
  }
}

void Value::read(std::uint64_t offset, std::span<std::byte> target) const {
  if (offset > size_ || target.size() > size_ - offset) {
    throw CheckpointError(where_ + ": has " + std::to_string(size_) + " bytes, expected " +
                          std::to_string(target.size()) + " more at byte " + std::to_string(offset));
  }
  if (target.empty()) return;
  if (file_ == nullptr) {
    std::memcpy(target.data(), bytes_.data() + offset_ + offset, target.size());
  } else {
    file_->read(offset_ + offset, target);
  }
}

std::string Value::text() const {
  std::string result(size_, '\0');
  read(0, std::as_writable_bytes(std::span(result)));
  return result;
}

Value Value::part(std::uint64_t offset, std::uint64_t size) const {
  if (offset > size_ || size > size_ - offset) {
    throw CheckpointError(where_ + ": has " + std::to_string(size_) + " bytes, but a part of it is " +
                          std::to_string(size) + " bytes at byte " + std::to_string(offset));
  }
  Value result = *this;
  result.offset_ += offset;
  result.size_ = size;
  return result;
}

bool is_array_key(const std::string& key) { return key.ends_with("/.zarray") || key.ends_with("/zarr.json"); }

std::unique_ptr<KeyValueStore> open_store(const std::filesystem::path& folder) {
  std::error_code error;  // said of the folder below
  if (std::filesystem::exists(folder / manifest_name, error)) return std::make_unique<Ocdbt>(folder);
  return std::make_unique<ArrayFolders>(folder);
}

}  // namespace pi0::orbax
