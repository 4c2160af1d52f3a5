#include "model/orbax/array_reader.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "model/checkpoint_error.h"
#include "model/orbax/byte_reader.h"

namespace pi0::orbax {
namespace {

using model::CheckpointError;

constexpr std::uint64_t most_columns = 4096;  // chunks side by side
constexpr std::uint64_t most_chunks_of_a_shard = 1 << 20;
constexpr std::uint64_t absent = ~std::uint64_t{0};  // in a shard's index

std::uint64_t product(std::span<const std::int64_t> sizes) {
  std::uint64_t result = 1;
  for (const std::int64_t size : sizes) result *= static_cast<std::uint64_t>(size);
  return result;
}

// How many chunks there are along each axis.
std::vector<std::int64_t> grid(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& chunk) {
  std::vector<std::int64_t> counts;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) counts.push_back((shape[axis] - 1) / chunk[axis] + 1);
  return counts;
}

// To the next indices below `counts` in C order, from axis `first` on. False after the last, which become zeros.
bool advance(std::vector<std::int64_t>& indices, const std::vector<std::int64_t>& counts, std::size_t first) {
  for (std::size_t axis = indices.size(); axis > first; --axis) {
    if (++indices[axis - 1] < counts[axis - 1]) return true;
    indices[axis - 1] = 0;
  }
  return false;
}

std::vector<std::int64_t> with_an_axis(const std::vector<std::int64_t>& shape) {
  return shape.empty() ? std::vector<std::int64_t>{1} : shape;
}

}  // namespace

ArrayReader::ArrayReader(const KeyValueStore& store, std::string name, ZarrLayout layout)
    : store_(store),
      name_(std::move(name)),
      layout_(std::move(layout)),
      shape_(with_an_axis(layout_.info.shape)),
      chunk_(with_an_axis(layout_.chunk)),
      row_bytes_(layout_.info.bytes / static_cast<std::uint64_t>(shape_[0])),
      is_one_column_(std::equal(shape_.begin() + 1, shape_.end(), chunk_.begin() + 1)) {
  const std::vector<std::int64_t> counts = grid(shape_, chunk_);
  std::uint64_t columns = 1;
  for (std::size_t axis = 1; axis < counts.size(); ++axis) {
    columns *= std::min(static_cast<std::uint64_t>(counts[axis]), most_columns + 1);
    if (columns > most_columns) {
      throw CheckpointError("array '" + name_ + "' of shape " + shown(shape_) + " is in chunks of shape " +
                            shown(chunk_) + ", expected at most " + std::to_string(most_columns) + " side by side");
    }
  }
}

std::uint64_t ArrayReader::chunk_row_bytes() const {
  return product(std::span(chunk_).subspan(1)) * bytes_of(layout_.info.dtype);
}

std::optional<Value> ArrayReader::find_in_shard(const std::vector<std::int64_t>& indices) {
  std::vector<std::int64_t> shard, counts;
  std::uint64_t place = 0;
  for (std::size_t axis = 0; axis < indices.size(); ++axis) {
    counts.push_back((*layout_.shard)[axis] / layout_.chunk[axis]);
    shard.push_back(indices[axis] / counts[axis]);
    place = place * static_cast<std::uint64_t>(counts[axis]) + static_cast<std::uint64_t>(indices[axis] % counts[axis]);
  }
  const auto [known, is_new] = shards_.try_emplace(shard);
  Shard& found = known->second;
  if (is_new) {
    found.value = store_.find(name_ + "/" + layout_.key(shard));
    if (found.value) {
      std::uint64_t chunks = 1;
      for (const std::int64_t count : counts) {
        chunks *= std::min(static_cast<std::uint64_t>(count), most_chunks_of_a_shard + 1);
        if (chunks > most_chunks_of_a_shard) {
          throw CheckpointError(found.value->where() + ": is a shard of more than " +
                                std::to_string(most_chunks_of_a_shard) + " chunks");
        }
      }
      const std::uint64_t entries_bytes = 16 * chunks, size = entries_bytes + (layout_.index_codecs.crc32c ? 4 : 0);
      if (size > found.value->size()) {
        throw CheckpointError(found.value->where() + ": has " + std::to_string(found.value->size()) +
                              " bytes, too few for the index of " + std::to_string(chunks) + " chunks");
      }
      std::vector<std::byte> bytes(entries_bytes);
      ChunkStream(found.value->part(layout_.index_at_end ? found.value->size() - size : 0, size), layout_.index_codecs,
                  entries_bytes)
          .read(bytes);
      ByteReader in(bytes, found.value->where());
      for (std::uint64_t i = 0; i < 2 * chunks; ++i) found.index.push_back(in.u64());
    }
  }
  if (!found.value) return std::nullopt;
  const std::uint64_t offset = found.index[2 * place], size = found.index[2 * place + 1];
  if (offset == absent && size == absent) return std::nullopt;
  return found.value->part(offset, size);
}

std::optional<Value> ArrayReader::find_chunk(const std::vector<std::int64_t>& indices) {
  std::optional<Value> found = layout_.shard ? find_in_shard(indices) : store_.find(name_ + "/" + layout_.key(indices));
  if (!found && !layout_.absent_is_zero) {
    throw CheckpointError("array '" + name_ + "': chunk " + shown(indices) +
                          " is missing, and its fill_value is not 0");
  }
  return found;
}

void ArrayReader::close() {
  columns_.clear();
  shards_.clear();
}

void ArrayReader::open(std::int64_t chunk_row) {
  close();
  const std::vector<std::int64_t> counts = grid(shape_, chunk_);
  std::vector<std::int64_t> indices(shape_.size(), 0);
  indices[0] = chunk_row;
  const std::uint64_t bytes = static_cast<std::uint64_t>(chunk_[0]) * chunk_row_bytes();
  do {
    Column column;
    for (std::size_t axis = 1; axis < indices.size(); ++axis) column.start.push_back(indices[axis] * chunk_[axis]);
    std::vector<std::int64_t> named = indices;
    named.resize(layout_.info.shape.size());  // none for an array without axes
    if (std::optional<Value> value = find_chunk(named)) {
      column.stream.emplace(std::move(*value), layout_.codecs, bytes);
    }
    columns_.push_back(std::move(column));
  } while (advance(indices, counts, 1));
  chunk_row_ = chunk_row;
  next_ = chunk_row * chunk_[0];
}

void ArrayReader::skip_rows(std::int64_t count) {
  for (Column& column : columns_) {
    if (column.stream) column.stream->skip(static_cast<std::uint64_t>(count) * chunk_row_bytes());
  }
  next_ += count;
}

// One row of a chunk into its places in a row of the array.
void ArrayReader::read_row(Column& column, std::span<std::byte> row) {
  const std::size_t axes = shape_.size();
  const std::uint64_t item = bytes_of(layout_.info.dtype);
  std::vector<std::int64_t> within(axes, 0), counts = chunk_;
  counts[axes - 1] = 1;  // runs along the last axis are read whole
  do {
    bool is_padding = false;
    std::uint64_t place = 0;  // in the row
    for (std::size_t axis = 1; axis < axes; ++axis) {
      const std::int64_t index = column.start[axis - 1] + within[axis];
      is_padding |= index >= shape_[axis];
      place = place * static_cast<std::uint64_t>(shape_[axis]) + static_cast<std::uint64_t>(index);
    }
    const std::int64_t run = chunk_[axes - 1];
    const std::int64_t used = is_padding ? 0 : std::min(run, shape_[axes - 1] - column.start[axes - 2]);
    const std::span<std::byte> target =
        used == 0 ? std::span<std::byte>{} : row.subspan(place * item, static_cast<std::uint64_t>(used) * item);
    if (column.stream) {
      column.stream->read(target);
      column.stream->skip(static_cast<std::uint64_t>(run - used) * item);
    } else if (!target.empty()) {
      std::memset(target.data(), 0, target.size());
    }
  } while (advance(within, counts, 1));
}

void ArrayReader::read(std::int64_t first, std::int64_t count, std::span<std::byte> target) {
  if (first < 0 || count < 1 || first > rows() - count ||
      target.size() != static_cast<std::uint64_t>(count) * row_bytes_) {
    throw std::invalid_argument("rows that array '" + name_ + "' does not have");
  }
  while (count > 0) {
    const std::int64_t chunk_row = first / chunk_[0];
    if (columns_.empty() || chunk_row != chunk_row_ || first < next_) open(chunk_row);
    if (first > next_) skip_rows(first - next_);
    const std::int64_t in_chunk = std::min(count, (chunk_row + 1) * chunk_[0] - first);
    const std::span<std::byte> part = target.first(static_cast<std::uint64_t>(in_chunk) * row_bytes_);
    if (is_one_column_) {
      if (columns_[0].stream) {
        columns_[0].stream->read(part);
      } else {
        std::memset(part.data(), 0, part.size());
      }
    } else {
      for (std::int64_t i = 0; i < in_chunk; ++i) {
        for (Column& column : columns_) {
          read_row(column, part.subspan(static_cast<std::uint64_t>(i) * row_bytes_, row_bytes_));
        }
      }
    }
    next_ += in_chunk;
    first += in_chunk;
    count -= in_chunk;
    target = target.subspan(part.size());
  }
  if (first < rows()) return;
  skip_rows((chunk_row_ + 1) * chunk_[0] - next_);  // what fills the last chunk up; the end is checked there
  close();
}

}  // namespace pi0::orbax
