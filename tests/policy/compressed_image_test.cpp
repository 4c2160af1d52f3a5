#include "model/policy/compressed_image.h"

#include <algorithm>
#include <array>
#include <map>
#include <stdexcept>

#include "policy/policy_fixtures.h"
#include "support/catch.h"

namespace pi0::policy {
namespace {

using File = std::vector<std::uint8_t>;

constexpr std::size_t most = std::size_t{1} << 20;

const protocol::Dict& image_goldens(const std::string& part) {
  static const protocol::Dict goldens = golden_message("images/images.msgpack");
  return std::get<protocol::Dict>(*goldens.find(part));
}

File file_of(const protocol::Value& value) { return std::get<protocol::Bytes>(value).data; }

File taken_file(const std::string& name) {
  return file_of(*std::get<protocol::Dict>(*image_goldens("taken").find(name)).find("file"));
}

File refused_file(const std::string& name) { return file_of(*image_goldens("refused").find(name)); }

std::string file_refusal(const File& file, std::size_t max_bytes = most) {
  return error_of<std::invalid_argument>([&] { decompressed(file, max_bytes); });
}

// The place of a JPEG's frame header: height and width are 5 and 7 bytes behind it.
std::size_t frame_of(const File& jpeg) {
  const std::array<std::uint8_t, 2> baseline = {0xFF, 0xC0};
  return static_cast<std::size_t>(std::search(jpeg.begin(), jpeg.end(), baseline.begin(), baseline.end()) -
                                  jpeg.begin());
}

}  // namespace

TEST_CASE("PNG and JPEG files have the pixels that Pillow reads", "[policy][image][golden]") {
  REQUIRE(image_goldens("taken").entries().size() == 24);
  for (const auto& [name, value] : image_goldens("taken").entries()) {
    INFO(name);
    const auto& pixels = std::get<protocol::NdArray>(*std::get<protocol::Dict>(value).find("pixels"));
    const Image image = decompressed(taken_file(name), most);
    REQUIRE(std::vector<std::int64_t>{image.height, image.width, 3} == pixels.shape);
    REQUIRE(image.pixels == pixels.data);
  }
}

TEST_CASE("files that a robot might see otherwise are refused by name", "[policy][image][golden]") {
  const std::map<std::string, std::string> expected = {
      {"png 16", "found a PNG file of 16 bits a channel"},
      {"png RGBA", "found a PNG file with alpha"},
      {"png grey and alpha", "found a PNG file with alpha"},
      {"png transparent color", "found a PNG file with transparency"},
      {"png animated", "found an animated PNG file"},
      {"png EXIF 6", "EXIF orientation 6"},
      {"png EXIF 3 at the end", "EXIF orientation 3"},
      {"png index", "the index 5 into a palette of 3 colors"},
      {"png without palette", "Missing PLTE"},
      {"png without last row", "not enough image data"},
      {"png interlaced without last row", "not enough image data"},
      {"png empty", "Invalid IHDR data"},
      {"jpeg CMYK", "found a JPEG file of 4 channels (CMYK)"},
      {"jpeg EXIF 6", "EXIF orientation 6"},
      {"jpeg of 101 scans", "too many scans"},
  };
  REQUIRE(image_goldens("refused").entries().size() == expected.size());
  for (const auto& [name, text] : expected) {
    INFO(name);
    REQUIRE_THAT(file_refusal(refused_file(name)), contains_text(text));
  }
}

TEST_CASE("a file that ends anywhere before its end is refused", "[policy][image]") {
  for (const std::string name : {"png", "png interlaced", "png palette 4", "jpeg 4:2:0", "jpeg progressive"}) {
    const File whole = taken_file(name);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      INFO(name << ", " << size << " of " << whole.size());
      REQUIRE_FALSE(file_refusal({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}).empty());
    }
  }
}

TEST_CASE("bytes behind a picture are refused", "[policy][image]") {
  for (const std::string name : {"png", "jpeg 4:2:0", "jpeg progressive"}) {
    INFO(name);
    File file = taken_file(name);
    file.insert(file.end(), 2, 0);
    REQUIRE_THAT(file_refusal(file), contains_text("found 2 bytes behind the picture, expected none"));
  }
}

TEST_CASE("damaged files are refused", "[policy][image]") {
  File png = taken_file("png");
  for (std::size_t i = 33; i < png.size(); ++i) {  // behind the header, whose checksum comes after other checks
    INFO(i);
    File damaged = png;
    damaged[i] ^= 0x10;
    REQUIRE_FALSE(file_refusal(damaged).empty());
  }
  File jpeg = taken_file("jpeg 4:4:4");
  std::fill(jpeg.end() - 60, jpeg.end() - 2, std::uint8_t{0x55});
  REQUIRE_THAT(file_refusal(jpeg), contains_text("found a JPEG file with errors: Corrupt JPEG data"));
}

TEST_CASE("sizes are checked before anything is allocated for them", "[policy][image]") {
  const File png = taken_file("png");  // 7 x 9
  REQUIRE(file_refusal(png, 7 * 9 * 3).empty());
  REQUIRE_THAT(file_refusal(png, 7 * 9 * 3 - 1),
               contains_text("found a picture of 7 x 9 pixels, expected at most 188 bytes") &&
                   contains_text("--max-image-bytes"));
  File huge_png = png;
  std::fill(huge_png.begin() + 16, huge_png.begin() + 24, std::uint8_t{0xFF});
  REQUIRE_THAT(file_refusal(huge_png), contains_text("4294967295 x 4294967295 pixels"));

  const File jpeg = taken_file("jpeg 4:2:0");  // 13 x 19
  REQUIRE_THAT(file_refusal(jpeg, 740), contains_text("found a picture of 13 x 19 pixels"));
  File huge_jpeg = jpeg;
  for (const std::size_t offset : {5, 7}) huge_jpeg[frame_of(jpeg) + offset] = 0xFF;
  REQUIRE_THAT(file_refusal(huge_jpeg), contains_text("65293 x 65299 pixels"));
  File empty_jpeg = jpeg;
  empty_jpeg[frame_of(jpeg) + 6] = 0;
  REQUIRE_THAT(file_refusal(empty_jpeg), contains_text("Empty JPEG image"));
}

TEST_CASE("codings of JPEG that are not for robots are refused", "[policy][image]") {
  File arithmetic = taken_file("jpeg 4:4:4");
  arithmetic[frame_of(arithmetic) + 1] = 0xC9;
  REQUIRE_THAT(file_refusal(arithmetic), contains_text("arithmetic coding, expected Huffman coding"));
  File twelve_bits = taken_file("jpeg 4:4:4");
  twelve_bits[frame_of(twelve_bits) + 4] = 12;
  REQUIRE_THAT(file_refusal(twelve_bits), contains_text("precision 12"));
}

TEST_CASE("bytes that are no picture are refused", "[policy][image]") {
  for (const std::string text : {"", "GIF89a", "RIFF....WEBPVP8 ", "\x89PNG", "\xFF\xD8"}) {
    REQUIRE_THAT(file_refusal({text.begin(), text.end()}), contains_text("neither as a PNG nor as a JPEG file"));
  }
}

}  // namespace pi0::policy
