#include "tools/common/observations.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <random>
#include <stdexcept>

#include "protocol/files.h"
#include "protocol/openpi_messages.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

protocol::NdArray picture(policy::ImageLayout layout, std::mt19937_64& generator) {
  constexpr std::int64_t size = 224;
  const bool channels_first = layout == policy::ImageLayout::channels_first;
  protocol::NdArray picture{{'u', 1}, {size, size, 3}, {}};
  if (channels_first) picture.shape = {3, size, size};
  picture.data.resize(static_cast<std::size_t>(size * size * 3));
  std::uniform_real_distribution<double> phase(0.0, 2 * std::numbers::pi), waves(1.0, 4.0);
  std::normal_distribution<double> grain(0.0, 8.0);
  for (std::int64_t channel = 0; channel < 3; ++channel) {
    const double x_phase = phase(generator), y_phase = phase(generator);
    const double x_waves = waves(generator), y_waves = waves(generator);
    for (std::int64_t y = 0; y < size; ++y) {
      for (std::int64_t x = 0; x < size; ++x) {
        const double turn = 2 * std::numbers::pi / size;
        const double level = 127 + 90 * std::sin(turn * x_waves * static_cast<double>(x) + x_phase) *
                                       std::cos(turn * y_waves * static_cast<double>(y) + y_phase);
        const std::int64_t at = channels_first ? (channel * size + y) * size + x : (y * size + x) * 3 + channel;
        picture.data[static_cast<std::size_t>(at)] =
            static_cast<std::uint8_t>(std::clamp(level + grain(generator), 0.0, 255.0));
      }
    }
  }
  return picture;
}

protocol::NdArray state(std::int64_t size, std::mt19937_64& generator) {
  std::vector<double> values(static_cast<std::size_t>(size));
  std::uniform_real_distribution<double> distribution(0.0, 1.0);
  std::ranges::generate(values, [&] { return distribution(generator); });
  protocol::NdArray state{{'f', 8}, {size}, {}};
  state.data.resize(values.size() * sizeof(double));
  std::memcpy(state.data.data(), values.data(), state.data.size());
  return state;
}

protocol::Dict synthetic_request(const policy::RobotConfig& robot, std::mt19937_64& generator) {
  protocol::Dict request, cameras;
  for (const policy::RobotConfig::Camera& camera : robot.cameras) {
    if (camera.field.empty()) continue;
    (robot.camera_map.empty() ? request : cameras).set(camera.field, picture(robot.image_layout, generator));
  }
  if (!robot.camera_map.empty()) request.set(robot.camera_map, std::move(cameras));
  for (const policy::RobotConfig::StateField& field : robot.state) {
    request.set(field.field, state(field.size, generator));
  }
  request.set(std::string(protocol::prompt_key), "put the banana in the green bin");
  return request;
}

}  // namespace

std::vector<Observation> read_observations(const fs::path& folder) {
  constexpr std::string_view ending = ".request.msgpack";
  std::error_code error;
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().filename().string().ends_with(ending)) files.push_back(entry.path());
  }
  if (error) throw std::runtime_error(folder.string() + ": cannot be listed: " + error.message());
  if (files.empty()) {
    throw std::runtime_error(folder.string() + ": holds no NNNNNN" + std::string(ending) +
                             "; pi0-server --record writes them");
  }
  std::ranges::sort(files);
  std::vector<Observation> observations;
  for (const fs::path& file : files) {
    const std::string name = file.filename().string();
    observations.push_back({name.substr(0, name.size() - ending.size()), protocol::read_message(file)});
  }
  return observations;
}

std::vector<Observation> synthetic_observations(const policy::RobotConfig& robot, std::int64_t count,
                                                std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::vector<Observation> observations;
  for (std::int64_t i = 0; i < count; ++i) {
    observations.push_back({"synthetic " + std::to_string(i), synthetic_request(robot, generator)});
  }
  return observations;
}

}  // namespace pi0::tools
