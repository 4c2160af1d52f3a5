// What the tests of this room share: files of the goldens, and requests made by hand.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "protocol/msgpack_numpy.h"
#include "protocol/value.h"

namespace pi0::policy {

inline std::string golden_text(const std::filesystem::path& file) {
  std::ifstream stream("goldens" / file, std::ios::binary);
  stream.exceptions(std::ios::badbit | std::ios::failbit);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

inline nlohmann::json golden_json(const std::filesystem::path& file) {
  return nlohmann::json::parse(golden_text(file));
}

inline protocol::Dict golden_message(const std::filesystem::path& file) {
  const std::string text = golden_text(file);
  return protocol::decode({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

template <class Number>
protocol::NdArray array_of(char kind, std::vector<std::int64_t> shape, const std::vector<Number>& values) {
  protocol::NdArray array;
  array.dtype = {kind, sizeof(Number)};
  array.shape = std::move(shape);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(values.data());
  array.data.assign(bytes, bytes + values.size() * sizeof(Number));
  return array;
}

inline std::vector<double> doubles_of(const protocol::NdArray& array) {
  std::vector<double> values(array.data.size() / sizeof(double));
  std::memcpy(values.data(), array.data.data(), array.data.size());
  return values;
}

// A DROID request with grey pictures of 4 x 6 pixels and the prompt "wave".
inline protocol::Dict droid_request() {
  const auto grey = array_of('u', {4, 6, 3}, std::vector<std::uint8_t>(4 * 6 * 3, 128));
  protocol::Dict request;
  request.set("observation/exterior_image_1_left", grey);
  request.set("observation/wrist_image_left", grey);
  request.set("observation/joint_position", array_of<double>('f', {7}, {0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7}));
  request.set("observation/gripper_position", array_of<double>('f', {1}, {0.25}));
  request.set("prompt", std::string("wave"));
  return request;
}

// An ALOHA request with grey pictures of 4 x 6 pixels from `cameras`, and no prompt.
inline protocol::Dict aloha_request(const std::vector<std::string>& cameras) {
  protocol::Dict images;
  for (const std::string& camera : cameras) {
    images.set(camera, array_of('u', {3, 4, 6}, std::vector<std::uint8_t>(4 * 6 * 3, 128)));
  }
  protocol::Dict request;
  request.set("state", array_of('f', {14}, std::vector<double>(14, 0.5)));
  request.set("images", images);
  return request;
}

inline protocol::Dict libero_request() {
  const auto grey = array_of('u', {4, 6, 3}, std::vector<std::uint8_t>(4 * 6 * 3, 128));
  protocol::Dict request;
  request.set("observation/state", array_of('f', {8}, std::vector<double>(8, 0.5)));
  request.set("observation/image", grey);
  request.set("observation/wrist_image", grey);
  request.set("prompt", std::string("wave"));
  return request;
}

inline protocol::Dict without(const protocol::Dict& request, const std::string& key) {
  protocol::Dict rest;
  for (const auto& [name, value] : request.entries()) {
    if (name != key) rest.set(name, value);
  }
  return rest;
}

// The text of the exception of type Error that `call` throws; empty when it throws none.
template <class Error, class Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace pi0::policy
