#include "model/policy/png_file.h"

#include <png.h>

#include <array>
#include <cstdio>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "model/policy/image_file.h"

namespace pi0::policy {
namespace {

// The file's first chunk, whose place is fixed. libpng checks it when it reads it again.
struct PngHeader {
  std::uint32_t height, width;
  int bit_depth, color_type;
};

PngHeader png_header(std::span<const std::uint8_t> file) {
  constexpr std::size_t width_at = 16, height_at = 20, bit_depth_at = 24, color_type_at = 25;
  if (file.size() <= color_type_at) throw std::invalid_argument("found a PNG file that ends in its header");
  return {png_get_uint_32(&file[height_at]), png_get_uint_32(&file[width_at]), file[bit_depth_at], file[color_type_at]};
}

// Reads a file with libpng's progressive reader: the other one would inflate what follows the last row, without end.
class PngReader {
 public:
  PngReader() {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, fail, [](png_structp, png_const_charp) {});
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw std::bad_alloc();
    }
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  // Fills rows of RGB, or of a palette's indices.
  void read(std::span<const std::uint8_t> file, std::uint8_t* rows, std::size_t row_bytes) {
    rows_ = rows;
    row_bytes_ = row_bytes;
    if (setjmp(png_jmpbuf(png_)) != 0) {  // libpng's errors come here by longjmp()
      throw std::invalid_argument(std::string("found a PNG file with errors: ") + problem_.data());
    }
    process(file);
    if (!has_ended_) throw std::invalid_argument("found a PNG file that ends too early");
    check_end(bytes_left_);
    if (is_animated_) throw std::invalid_argument("found an animated PNG file, expected one picture");
    check_orientation(orientation_);
  }

  bool has_transparency() const { return png_get_valid(png_, info_, PNG_INFO_tRNS) != 0; }

  std::span<const png_color> palette() const {
    png_colorp colors = nullptr;
    int count = 0;
    png_get_PLTE(png_, info_, &colors, &count);
    return {colors, static_cast<std::size_t>(count)};
  }

 private:
  static PngReader& of(png_voidp reader) { return *static_cast<PngReader*>(reader); }

  [[noreturn]] static void fail(png_structp png, png_const_charp text) {
    std::array<char, 200>& problem = of(png_get_error_ptr(png)).problem_;
    std::snprintf(problem.data(), problem.size(), "%s", text);
    png_longjmp(png, 1);
  }

  // libpng may leave this function by longjmp(): nothing in it has a destructor.
  void process(std::span<const std::uint8_t> file) {
    png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // ours is on their product
    // Chunks on which no pixel depends are not decoded: compressed texts and color profiles may be bombs.
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
    png_set_read_user_chunk_fn(png_, this, see_chunk);
    png_set_progressive_read_fn(png_, this, begin_rows, add_row, end_file);
    png_process_data(png_, info_, const_cast<std::uint8_t*>(file.data()), file.size());  // it only reads
  }

  static void begin_rows(png_structp png, png_infop info) {
    if (png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY) png_set_gray_to_rgb(png);
    png_set_packing(png);  // a byte for each index
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    if (png_get_rowbytes(png, info) != of(png_get_progressive_ptr(png)).row_bytes_)
      png_error(png, "rows of another size");
  }

  static void add_row(png_structp png, png_bytep row, png_uint_32 index, int /*pass*/) {
    PngReader& reader = of(png_get_progressive_ptr(png));
    png_progressive_combine_row(png, reader.rows_ + index * reader.row_bytes_, row);
  }

  static void end_file(png_structp png, png_infop info) {
    const bool has_all_rows = png_get_interlace_type(png, info) == PNG_INTERLACE_NONE
                                  ? png_get_current_row_number(png) == png_get_image_height(png, info)
                                  : png_get_current_pass_number(png) == PNG_INTERLACE_ADAM7_PASSES;
    if (!has_all_rows) png_error(png, "not enough image data");
    PngReader& reader = of(png_get_progressive_ptr(png));
    reader.has_ended_ = true;
    reader.bytes_left_ = png_process_data_pause(png, /*save=*/0);
  }

  static int see_chunk(png_structp png, png_unknown_chunkp chunk) {
    PngReader& reader = of(png_get_user_chunk_ptr(png));
    const std::string_view name(reinterpret_cast<const char*>(chunk->name), 4);
    if (name == "acTL") reader.is_animated_ = true;
    if (name == "eXIf") reader.orientation_ = exif_orientation({chunk->data, chunk->size});
    return 0;
  }

  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::uint8_t* rows_ = nullptr;
  std::size_t row_bytes_ = 0;
  bool has_ended_ = false;
  std::size_t bytes_left_ = 0;  // behind the end
  bool is_animated_ = false;
  int orientation_ = 1;
  std::array<char, 200> problem_{};
};

void look_up(std::span<const std::uint8_t> indices, std::span<const png_color> palette, Image& image) {
  auto pixel = image.pixels.begin();
  for (const std::uint8_t index : indices) {
    if (index >= palette.size()) {
      throw std::invalid_argument("found a PNG file with the index " + std::to_string(index) + " into a palette of " +
                                  std::to_string(palette.size()) + " colors");
    }
    *pixel++ = palette[index].red;
    *pixel++ = palette[index].green;
    *pixel++ = palette[index].blue;
  }
}

}  // namespace

Image read_png(std::span<const std::uint8_t> file, std::size_t max_bytes) {
  const std::string expected = ", expected RGB, grey or a palette of at most 8 bits";
  const PngHeader header = png_header(file);
  Image image = blank_image(header.height, header.width, max_bytes);
  if (header.bit_depth > 8) throw std::invalid_argument("found a PNG file of 16 bits a channel" + expected);
  const bool has_alpha = (header.color_type & PNG_COLOR_MASK_ALPHA) != 0;
  if (has_alpha) throw std::invalid_argument("found a PNG file with alpha" + expected);
  const bool has_palette = header.color_type == PNG_COLOR_TYPE_PALETTE;
  std::vector<std::uint8_t> indices(has_palette ? image.pixels.size() / 3 : 0);
  PngReader reader;
  if (has_palette) {
    reader.read(file, indices.data(), header.width);
  } else {
    reader.read(file, image.pixels.data(), std::size_t{3} * header.width);
  }
  if (reader.has_transparency()) throw std::invalid_argument("found a PNG file with transparency" + expected);
  if (has_palette) look_up(indices, reader.palette(), image);
  return image;
}

}  // namespace pi0::policy
