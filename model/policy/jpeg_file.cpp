#include "model/policy/jpeg_file.h"

// clang-format off
#include <cstdio>  // jpeglib.h needs its FILE
#include <jpeglib.h>
// clang-format on

#include <algorithm>
#include <array>
#include <csetjmp>
#include <stdexcept>
#include <string>

#include "model/policy/image_file.h"

namespace pi0::policy {
namespace {

constexpr int max_scans = 100;  // encoders write about ten; a scan of a few bytes may take as long as a whole picture
constexpr std::array<std::uint8_t, 6> exif_header = {'E', 'x', 'i', 'f', 0, 0};

// libjpeg's state. After a warning libjpeg makes pixels up, so warnings are errors here.
class JpegReader {
 public:
  JpegReader() {
    info_.err = jpeg_std_error(&errors_);
    info_.client_data = this;
    errors_.error_exit = fail;
    errors_.emit_message = [](j_common_ptr info, int level) {
      if (level < 0) fail(info);
    };
    progress_.progress_monitor = [](j_common_ptr info) {
      if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > max_scans) of(info).end("too many scans");
    };
  }
  ~JpegReader() { jpeg_destroy_decompress(&info_); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  // Errors leave libjpeg and `work` by longjmp(), so `work` may hold nothing that has a destructor.
  template <class Work>
  void run(Work work) {
    if (setjmp(failed_) != 0)
      throw std::invalid_argument(std::string("found a JPEG file with errors: ") + problem_.data());
    work();
  }

  void read_header(std::span<const std::uint8_t> file) {
    run([&] {
      jpeg_create_decompress(&info_);
      info_.progress = &progress_;
      jpeg_mem_src(&info_, file.data(), file.size());
      jpeg_save_markers(&info_, JPEG_APP0 + 1, 0xFFFF);  // EXIF
      jpeg_read_header(&info_, TRUE);
    });
  }

  jpeg_decompress_struct& info() { return info_; }

 private:
  static JpegReader& of(j_common_ptr info) { return *static_cast<JpegReader*>(info->client_data); }

  [[noreturn]] static void fail(j_common_ptr info) {
    std::array<char, JMSG_LENGTH_MAX> text;
    info->err->format_message(info, text.data());
    of(info).end(text.data());
  }

  [[noreturn]] void end(const char* problem) {
    std::snprintf(problem_.data(), problem_.size(), "%s", problem);
    std::longjmp(failed_, 1);
  }

  jpeg_decompress_struct info_{};
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr progress_{};
  std::jmp_buf failed_{};
  std::array<char, JMSG_LENGTH_MAX> problem_{};
};

void check_coding(const jpeg_decompress_struct& info) {
  // Its decoder makes up what is missing, without a warning and without an end.
  if (info.arith_code) throw std::invalid_argument("found a JPEG file with arithmetic coding, expected Huffman coding");
  const J_COLOR_SPACE space = info.jpeg_color_space;
  if (space == JCS_GRAYSCALE || space == JCS_YCbCr || space == JCS_RGB) return;
  const bool is_cmyk = space == JCS_CMYK || space == JCS_YCCK;
  throw std::invalid_argument("found a JPEG file of " + std::to_string(info.num_components) + " channels" +
                              (is_cmyk ? " (CMYK)" : "") + ", expected RGB or grey");
}

void check_orientations(const jpeg_decompress_struct& info) {
  for (const jpeg_marker_struct* marker = info.marker_list; marker != nullptr; marker = marker->next) {
    const std::span<const std::uint8_t> data(marker->data, marker->data_length);
    if (data.size() < exif_header.size() || !std::ranges::equal(data.first(exif_header.size()), exif_header)) continue;
    check_orientation(exif_orientation(data.subspan(exif_header.size())));
  }
}

}  // namespace

Image read_jpeg(std::span<const std::uint8_t> file, std::size_t max_bytes) {
  JpegReader reader;
  reader.read_header(file);
  jpeg_decompress_struct& info = reader.info();
  check_coding(info);
  check_orientations(info);
  Image image = blank_image(info.image_height, info.image_width, max_bytes);
  reader.run([&] {
    info.out_color_space = JCS_RGB;
    jpeg_start_decompress(&info);
    JSAMPROW row = image.pixels.data();
    for (; info.output_scanline < info.output_height; row += std::size_t{3} * info.output_width) {
      jpeg_read_scanlines(&info, &row, 1);
    }
    jpeg_finish_decompress(&info);
  });
  check_end(info.src->bytes_in_buffer);
  return image;
}

}  // namespace pi0::policy
