// PNG and JPEG files as images, to the byte as Pillow's Image.open(file).convert("RGB") gives them where that leaves no
// question. Color profiles and gamma are not applied, as by Pillow. Refused is what a robot might see otherwise than
// its sender: alpha, 16 bits, CMYK, a rotation in EXIF, animations, and files that are damaged or have more bytes
// behind. Nothing is allocated for a size before it is checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "model/policy/image_resize.h"

namespace pi0::policy {

// `max_bytes` limits height x width x 3. Throws std::invalid_argument that says what was found and what was expected.
Image decompressed(std::span<const std::uint8_t> file, std::size_t max_bytes);

}  // namespace pi0::policy
