// A value that /metrics reads when it is requested.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace pi0::server {

struct GaugeValue {
  double value = 0;
  std::vector<std::pair<std::string, std::string>> labels = {};  // name and value
};

struct Gauge {
  std::string name;  // a Prometheus name: "pi0_queue_length"
  std::string help;
  std::function<std::vector<GaugeValue>()> read;  // on the network thread: must be quick
};

}  // namespace pi0::server
