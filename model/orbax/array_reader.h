// One array's elements in C order, a few rows at a time and without ever holding all of them. A row is what one index
// along the first axis selects; an array without axes is one row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/orbax/chunk_stream.h"
#include "model/orbax/key_values.h"
#include "model/orbax/zarr.h"

namespace pi0::orbax {

// zstd streams cannot be entered in the middle: rows in order are decoded once, going back starts the chunk again.
class ArrayReader {
 public:
  // The store must outlive the reader.
  ArrayReader(const KeyValueStore& store, std::string name, ZarrLayout layout);

  const ArrayInfo& info() const { return layout_.info; }
  std::int64_t rows() const { return shape_[0]; }
  std::uint64_t row_bytes() const { return row_bytes_; }

  // Rows [first, first + count) into `target`, which has just that size. After the array's last row nothing is kept
  // open. Throws CheckpointError when chunks are missing, damaged, too short or too long.
  void read(std::int64_t first, std::int64_t count, std::span<std::byte> target);

 private:
  // A chunk of the current row of chunks.
  struct Column {
    std::vector<std::int64_t> start;    // of its elements along the axes after the first
    std::optional<ChunkStream> stream;  // none: all zeros
  };
  void open(std::int64_t chunk_row);
  void close();
  std::optional<Value> find_chunk(const std::vector<std::int64_t>& indices);
  std::optional<Value> find_in_shard(const std::vector<std::int64_t>& indices);
  void skip_rows(std::int64_t count);
  void read_row(Column& column, std::span<std::byte> row);
  std::uint64_t chunk_row_bytes() const;

  const KeyValueStore& store_;
  std::string name_;
  ZarrLayout layout_;
  std::vector<std::int64_t> shape_, chunk_;  // the layout's, at least one axis
  std::uint64_t row_bytes_;
  bool is_one_column_;  // rows of chunks are rows of the array

  std::vector<Column> columns_;  // empty: nothing is open
  std::int64_t chunk_row_ = 0;
  std::int64_t next_ = 0;  // the row that the streams give next
  struct Shard {
    std::optional<Value> value;
    std::vector<std::uint64_t> index;  // offset and size of each chunk
  };
  std::map<std::vector<std::int64_t>, Shard> shards_;  // of the current row of chunks
};

}  // namespace pi0::orbax
