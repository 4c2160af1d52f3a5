#include "model/policy/robot.h"

#include <functional>
#include <map>

#include "model/policy/robot_droid.h"

namespace pi0::policy {
namespace {

const std::map<std::string, std::function<std::unique_ptr<const Robot>()>>& makers() {
  static const std::map<std::string, std::function<std::unique_ptr<const Robot>()>> all = {
      {"droid", make_droid_robot},
  };
  return all;
}

}  // namespace

std::vector<std::string> robot_names() {
  std::vector<std::string> names;
  for (const auto& [name, maker] : makers()) names.push_back(name);
  return names;
}

std::unique_ptr<const Robot> make_robot(const std::string& name) {
  const auto maker = makers().find(name);
  if (maker != makers().end()) return maker->second();
  std::string known;
  for (const std::string& robot : robot_names()) known += (known.empty() ? "" : ", ") + robot;
  throw std::invalid_argument("unknown robot '" + name + "'; known: " + known);
}

}  // namespace pi0::policy
