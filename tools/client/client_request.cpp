#include "tools/client/client_request.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "protocol/files.h"
#include "protocol/openpi_messages.h"
#include "tools/client/picture.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

const std::string camera_map = "images";
const std::vector<double> above_table = {0.0, -0.6, 0.0, -2.2, 0.0, 1.6, 0.8};  // radians

protocol::NdArray float64_array(const std::vector<double>& values) {
  protocol::NdArray array{{'f', 8}, {static_cast<std::int64_t>(values.size())}, {}};
  array.data.resize(values.size() * sizeof(double));
  std::memcpy(array.data.data(), values.data(), array.data.size());
  return array;
}

std::vector<double> numbers_of(std::string_view text) {
  std::vector<double> numbers;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    double number = 0;
    const auto [rest, error] = std::from_chars(text.data() + begin, text.data() + end, number);
    if (error != std::errc() || rest != text.data() + end || !std::isfinite(number)) {
      throw CLI::ValidationError("--state",
                                 fmt::format("found '{}', expected a number", text.substr(begin, end - begin)));
    }
    numbers.push_back(number);
    begin = end + 1;
  }
  return numbers;
}

// [H, W, 3] to [3, H, W].
protocol::NdArray channels_first(const protocol::NdArray& picture) {
  protocol::NdArray planes{picture.dtype, {3, picture.shape[0], picture.shape[1]}, {}};
  for (std::size_t channel = 0; channel < 3; ++channel) {
    for (std::size_t i = channel; i < picture.data.size(); i += 3) planes.data.push_back(picture.data[i]);
  }
  return planes;
}

// A name "images/cam_high" is ALOHA's: a map of cameras, each [3, H, W].
void set_picture(protocol::Dict& request, const std::string& field, protocol::NdArray picture) {
  if (!field.starts_with(camera_map + "/")) return request.set(field, std::move(picture));
  const protocol::Value* found = request.find(camera_map);
  const auto* known = found == nullptr ? nullptr : std::get_if<protocol::Dict>(found);
  protocol::Dict cameras = known == nullptr ? protocol::Dict() : *known;
  cameras.set(field.substr(camera_map.size() + 1), channels_first(picture));
  request.set(camera_map, std::move(cameras));
}

// "FIELD=VALUE"; without a field, the whole is the value.
std::pair<std::string, std::string> field_and_value(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == text.npos) return {"", text};
  return {text.substr(0, equals), text.substr(equals + 1)};
}

// The request's field that an option names; empty for a file without one.
std::string field_of_image(const std::string& image) {
  const std::string field = fs::exists(image) ? "" : field_and_value(image).first;  // any file's name is possible
  return field.starts_with(camera_map + "/") ? camera_map : field;
}

void add_droid(protocol::Dict& request, const std::string& image, const RequestOptions& options) {
  request.set("observation/exterior_image_1_left", read_picture(image));
  request.set("observation/wrist_image_left",
              read_picture(options.wrist_image.empty() ? fs::path(image) : options.wrist_image));
  request.set("observation/joint_position", float64_array(options.joints.empty() ? above_table : options.joints));
  request.set("observation/gripper_position", float64_array({options.gripper.value_or(0.0)}));
}

}  // namespace

protocol::Dict read_request(const RequestOptions& options) {
  protocol::Dict request = options.recording.empty() ? protocol::Dict() : protocol::read_message(options.recording);
  bool is_droid = false;
  for (const std::string& image : options.images) {
    // Before fields could be named, any file's name was possible.
    const auto [field, file] = fs::exists(image) ? std::pair(std::string(), image) : field_and_value(image);
    if (!field.empty()) {
      set_picture(request, field, read_picture(file));
    } else if (request.entries().empty()) {
      add_droid(request, file, options);
      is_droid = true;
    } else {
      throw CLI::ValidationError("--image", fmt::format("found '{}', expected FIELD=FILE beside other fields", file));
    }
  }
  if (!is_droid && (!options.wrist_image.empty() || !options.joints.empty() || options.gripper)) {
    throw CLI::ValidationError("--wrist-image, --joint-position, --gripper-position",
                               "are a DROID robot's, expected them beside --image FILE without a field");
  }
  for (const std::string& state : options.states) {
    const auto [field, numbers] = field_and_value(state);
    if (field.empty()) throw CLI::ValidationError("--state", fmt::format("found '{}', expected FIELD=NUMBERS", state));
    request.set(field, float64_array(numbers_of(numbers)));
  }
  if (!options.prompt.empty()) request.set(std::string(protocol::prompt_key), options.prompt);
  return request;
}

void check_named_fields(const RequestOptions& options, const protocol::Dict& metadata) {
  const protocol::Value* found = metadata.find("request_fields");
  const auto* list = found == nullptr ? nullptr : std::get_if<protocol::List>(found);
  if (list == nullptr) return;
  std::vector<std::string> known, named;
  for (const protocol::Value& item : list->items) {
    if (const auto* field = std::get_if<std::string>(&item)) known.push_back(*field);
  }
  for (const std::string& image : options.images) named.push_back(field_of_image(image));
  for (const std::string& state : options.states) named.push_back(field_and_value(state).first);
  for (const std::string& field : named) {
    if (field.empty() || std::ranges::find(known, field) != known.end()) continue;
    throw std::runtime_error(
        fmt::format("{}: is no field of this server's requests, expected one of {}", field, fmt::join(known, ", ")));
  }
}

}  // namespace pi0::tools
