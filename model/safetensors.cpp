#include "model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <string_view>

#include "model/json_fields.h"

namespace pi0::model {
namespace {

namespace fs = std::filesystem;

// Removes pages of the map from the resident set. The system reads them again when they are needed.
void drop_pages(const std::byte* begin, std::size_t size) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t into_page = reinterpret_cast<std::uintptr_t>(begin) % page;
  ::madvise(const_cast<std::byte*>(begin) - into_page, size + into_page, MADV_DONTNEED);
}

constexpr std::uint64_t max_header_bytes = 100'000'000;  // the limit of the reference reader
constexpr std::int64_t slice_bytes = std::int64_t{64} << 20;

struct DTypeName {
  const char* name;
  at::ScalarType dtype;
};
constexpr std::array<DTypeName, 12> dtype_names{{{"F64", at::kDouble},
                                                 {"F32", at::kFloat},
                                                 {"F16", at::kHalf},
                                                 {"BF16", at::kBFloat16},
                                                 {"F8_E4M3", at::kFloat8_e4m3fn},
                                                 {"F8_E5M2", at::kFloat8_e5m2},
                                                 {"I64", at::kLong},
                                                 {"I32", at::kInt},
                                                 {"I16", at::kShort},
                                                 {"I8", at::kChar},
                                                 {"U8", at::kByte},
                                                 {"BOOL", at::kBool}}};

std::optional<at::ScalarType> dtype_of(const std::string& name) {
  for (const DTypeName& known : dtype_names) {
    if (name == known.name) return known.dtype;
  }
  return std::nullopt;
}

const char* name_of(at::ScalarType dtype) {
  for (const DTypeName& known : dtype_names) {
    if (dtype == known.dtype) return known.name;
  }
  throw CheckpointError(c10::str("safetensors has no name for dtype ", dtype));
}

[[noreturn]] void fail(const fs::path& path, const std::string& what) {
  throw CheckpointError(path.string() + ": " + what);
}

Json parse_header(const fs::path& path, std::string_view text) {
  try {
    return parse_json(text, path.string() + ": header");
  } catch (const JsonFileError& error) {
    throw CheckpointError(error.what());
  }
}

// Reads a list of non-negative integers whose running product stays far from overflow.
std::vector<std::int64_t> read_sizes(const fs::path& path, const std::string& tensor, const Json& field,
                                     const char* key) {
  constexpr std::uint64_t max_size = std::uint64_t{1} << 62;
  std::vector<std::int64_t> sizes;
  if (!field.is_array()) {
    fail(path, "tensor '" + tensor + "': " + key + " is " + shown(field) + ", expected a list");
  }
  for (const Json& item : field) {
    if (!item.is_number_unsigned() || item.get<std::uint64_t>() > max_size) {
      fail(path, "tensor '" + tensor + "': " + key + " is " + shown(field) + ", expected non-negative integers");
    }
    sizes.push_back(item.get<std::int64_t>());
  }
  return sizes;
}

SafetensorsFile::Entry read_entry(const fs::path& path, const std::string& name, const Json& fields,
                                  std::size_t data_start, std::size_t file_size) {
  const auto refuse = [&](const std::string& what) { fail(path, "tensor '" + name + "': " + what); };
  if (!fields.is_object() || fields.size() != 3 || !fields.contains("dtype") || !fields.contains("shape") ||
      !fields.contains("data_offsets")) {
    refuse("header entry is " + shown(fields) + ", expected dtype, shape and data_offsets");
  }
  const auto dtype = fields["dtype"].is_string() ? dtype_of(fields["dtype"].get<std::string>()) : std::nullopt;
  if (!dtype) refuse("dtype " + shown(fields["dtype"]) + " is unknown");

  SafetensorsFile::Entry entry{*dtype, read_sizes(path, name, fields["shape"], "shape")};
  const auto offsets = read_sizes(path, name, fields["data_offsets"], "data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    refuse("data_offsets are " + shown(fields["data_offsets"]) + ", expected [begin, end]");
  }
  std::int64_t bytes = static_cast<std::int64_t>(c10::elementSize(*dtype));
  for (const std::int64_t size : entry.shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) refuse("shape overflows 64 bits");
  }
  if (offsets[1] - offsets[0] != bytes) {
    refuse(c10::str("data_offsets span ", offsets[1] - offsets[0], " bytes, shape ", entry.shape, " of ",
                    name_of(*dtype), " needs ", bytes));
  }
  if (static_cast<std::size_t>(offsets[1]) > file_size - data_start) {
    refuse(c10::str("data ends at byte ", offsets[1], " of ", file_size - data_start,
                    ": the file is truncated or the header wrong"));
  }
  entry.begin = data_start + static_cast<std::size_t>(offsets[0]);
  entry.end = data_start + static_cast<std::size_t>(offsets[1]);
  return entry;
}

std::map<std::string, std::string> read_metadata(const fs::path& path, const Json& fields) {
  const auto is_text = [](const Json& value) { return value.is_string(); };
  if (!fields.is_object() || !std::all_of(fields.begin(), fields.end(), is_text)) {
    fail(path, "__metadata__ is " + shown(fields) + ", expected an object of texts");
  }
  return fields.get<std::map<std::string, std::string>>();
}

void check_coverage(const fs::path& path, const std::map<std::string, SafetensorsFile::Entry>& all,
                    std::size_t data_start, std::size_t file_size) {
  std::vector<std::pair<const std::string*, const SafetensorsFile::Entry*>> by_offset;
  for (const auto& [name, entry] : all) by_offset.emplace_back(&name, &entry);
  std::sort(by_offset.begin(), by_offset.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  std::size_t expected = data_start;
  for (const auto& [name, entry] : by_offset) {
    if (entry->begin != expected) {
      fail(path, c10::str("tensor '", *name, "' begins at byte ", entry->begin - data_start, ", ",
                          entry->begin < expected ? "inside the tensor before it" : "after a gap", "; expected ",
                          expected - data_start));
    }
    expected = entry->end;
  }
  if (expected != file_size) {
    fail(path, c10::str("holds ", file_size - expected, " bytes after its last tensor"));
  }
}

}  // namespace

SafetensorsFile::SafetensorsFile(fs::path path) : path_(std::move(path)) {
  const int file = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(path_, std::string("cannot be opened: ") + std::strerror(errno));
  struct stat status {};
  const bool is_file = ::fstat(file, &status) == 0 && S_ISREG(status.st_mode);
  const std::size_t size = is_file ? static_cast<std::size_t>(status.st_size) : 0;
  void* mapped = size > 0 ? ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
  ::close(file);
  if (mapped != MAP_FAILED) {
    data_ = {static_cast<const std::byte*>(mapped),
             [size](const std::byte* data) { ::munmap(const_cast<std::byte*>(data), size); }};
  }
  if (!is_file) fail(path_, "is not a regular file");
  if (size < 8) fail(path_, c10::str("has ", size, " bytes, too short for a safetensors file"));
  if (mapped == MAP_FAILED) fail(path_, std::string("cannot be mapped: ") + std::strerror(errno));
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, data_.get(), sizeof header_bytes);
  if (header_bytes > std::min<std::uint64_t>(max_header_bytes, size - 8)) {
    fail(path_, c10::str("announces a header of ", header_bytes, " bytes in a file of ", size,
                         ": truncated, or not a safetensors file"));
  }
  const auto* text = reinterpret_cast<const char*>(data_.get()) + 8;
  const Json header = parse_header(path_, {text, header_bytes});
  if (!header.is_object()) fail(path_, "header is not a JSON object");
  const std::size_t data_start = 8 + header_bytes;
  for (const auto& [name, fields] : header.items()) {
    if (name == "__metadata__") {
      metadata_ = read_metadata(path_, fields);
      continue;
    }
    entries_.emplace(name, read_entry(path_, name, fields, data_start, size));
  }
  check_coverage(path_, entries_, data_start, size);
}

const SafetensorsFile::Entry& SafetensorsFile::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail(path_, "has no tensor '" + name + "'");
  return found->second;
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const Entry& source = entry(name);
  at::Tensor result = at::empty(source.shape, source.dtype);
  if (source.end > source.begin) {
    std::memcpy(result.data_ptr(), data_.get() + source.begin, source.end - source.begin);
  }
  return result;
}

void SafetensorsFile::copy_to(const std::string& name, const at::Tensor& target, at::ScalarType through) const {
  const Entry& source = entry(name);
  const auto item_bytes = static_cast<std::int64_t>(c10::elementSize(source.dtype));
  const std::int64_t count = target.numel();
  TORCH_CHECK(count * item_bytes == static_cast<std::int64_t>(source.end - source.begin), "copy_to: '", name,
              "' has another number of elements than its target");
  const at::Tensor flat = target.view({-1});
  for (std::int64_t first = 0; first < count; first += slice_bytes / item_bytes) {
    const std::int64_t length = std::min(slice_bytes / item_bytes, count - first);
    const std::byte* begin = data_.get() + source.begin + first * item_bytes;
    // Tensors in a file need not be aligned to their element size; ATen's kernels need it.
    at::Tensor slice;
    if (reinterpret_cast<std::uintptr_t>(begin) % static_cast<std::uintptr_t>(item_bytes) == 0) {
      slice = at::from_blob(const_cast<std::byte*>(begin), {length}, source.dtype);
    } else {
      slice = at::empty({length}, source.dtype);
      std::memcpy(slice.data_ptr(), begin, static_cast<std::size_t>(length * item_bytes));
    }
    flat.narrow(0, first, length).copy_(slice.to(through));
    drop_pages(begin, static_cast<std::size_t>(length * item_bytes));
  }
}

at::Tensor SafetensorsFile::lend(const std::string& name) const {
  const Entry& source = entry(name);
  const std::byte* const begin = data_.get() + source.begin;
  if (reinterpret_cast<std::uintptr_t>(begin) % c10::elementSize(source.dtype) != 0) return {};
  return at::from_blob(
      const_cast<std::byte*>(begin), source.shape,
      [map = data_, size = source.end - source.begin](void* data) { drop_pages(static_cast<std::byte*>(data), size); },
      source.dtype);
}

std::span<const std::byte> SafetensorsFile::bytes(const std::string& name) const {
  const Entry& source = entry(name);
  return {data_.get() + source.begin, source.end - source.begin};
}

void write_safetensors(const WriteBytes& write, const std::vector<SafetensorsPart>& parts,
                       const std::map<std::string, std::string>& metadata, std::size_t alignment) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::int64_t offset = 0;
  for (const SafetensorsPart& part : parts) {
    const std::int64_t bytes =
        c10::multiply_integers(part.shape) * static_cast<std::int64_t>(c10::elementSize(part.dtype));
    header[part.name] = {
        {"dtype", name_of(part.dtype)}, {"shape", part.shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  std::uint64_t header_bytes = 0;
  text.resize((sizeof header_bytes + text.size() + alignment - 1) / alignment * alignment - sizeof header_bytes, ' ');
  header_bytes = text.size();
  write(&header_bytes, sizeof header_bytes);
  write(text.data(), text.size());
  for (const SafetensorsPart& part : parts) {
    const at::Tensor values = part.values().contiguous().cpu();
    TORCH_CHECK(values.scalar_type() == part.dtype && values.sizes() == part.shape, "write_safetensors: '", part.name,
                "' is not what its header says");
    write(values.data_ptr(), values.nbytes());
  }
}

void write_safetensors(const WriteBytes& write, const std::map<std::string, at::Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsPart> parts;
  for (const auto& [name, tensor] : tensors) {
    parts.push_back({name, tensor.scalar_type(), tensor.sizes().vec(), [values = tensor] { return values; }});
  }
  write_safetensors(write, parts, metadata);
}

}  // namespace pi0::model
