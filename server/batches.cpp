#include "server/batches.h"

#include <algorithm>
#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "protocol/openpi_messages.h"
#include "protocol/utf8.h"

namespace pi0::server {
namespace {

using protocol::Dict;
using protocol::List;

std::vector<Dict> observations_of(Dict& request, std::size_t most) {
  for (const auto& [key, value] : request.entries()) {
    if (key == protocol::batch_key) continue;
    throw std::runtime_error("batch: found beside '" + protocol::clipped(key) + "', expected alone");
  }
  protocol::Value& batch = *request.find(protocol::batch_key);
  auto* list = std::get_if<List>(&batch);
  if (list == nullptr || list->items.empty()) {
    throw std::runtime_error("batch: found " + (list ? "an empty list" : type_name(batch)) +
                             ", expected a list of observations");
  }
  if (list->items.size() > most) {
    throw std::runtime_error("batch: found " + std::to_string(list->items.size()) + " observations, expected at most " +
                             std::to_string(most) + " (the server's --max-observations)");
  }
  std::vector<Dict> observations;
  for (protocol::Value& item : list->items) {
    const std::string name = "batch[" + std::to_string(observations.size()) + "]: found ";
    auto* observation = std::get_if<Dict>(&item);
    if (observation == nullptr) throw std::runtime_error(name + type_name(item) + ", expected a map");
    if (observation->find(protocol::batch_key))
      throw std::runtime_error(name + "another batch, expected an observation");
    observations.push_back(std::move(*observation));
  }
  return observations;
}

Dict joined(const std::vector<Outcome>& outcomes) {
  Dict answer;
  for (const auto& [key, first] : outcomes.front().answer.entries()) {
    List values;
    for (const Outcome& outcome : outcomes) {
      const protocol::Value* value = outcome.answer.find(key);
      values.items.push_back(value ? *value : protocol::Value{});
    }
    if (const auto* timing = std::get_if<Dict>(&first); timing && key == protocol::policy_timing_key) {
      Dict of_batch = *timing;
      of_batch.set("batch_size", static_cast<std::int64_t>(outcomes.size()));
      answer.set(key, std::move(of_batch));
    } else if (std::optional<protocol::NdArray> arrays = protocol::stacked(values)) {
      answer.set(key, *std::move(arrays));
    } else {
      answer.set(key, std::move(values));
    }
  }
  return answer;
}

std::vector<Outcome> checked(const BatchInferFunction& infer, std::vector<Dict> requests) {
  const std::size_t count = requests.size();
  std::vector<Outcome> outcomes = infer(std::move(requests));
  if (outcomes.size() != count) throw std::logic_error("the policy did not return one answer per request");
  return outcomes;
}

Outcome outcome_of_batch(const BatchInferFunction& infer, Dict& request, std::size_t max_observations) {
  std::vector<Dict> observations;
  try {
    observations = observations_of(request, max_observations);
  } catch (const std::runtime_error&) {
    return {.answer = {}, .observations = 0, .error = std::current_exception()};
  }
  const std::vector<Outcome> outcomes = checked(infer, std::move(observations));
  const auto failed = std::ranges::find_if(outcomes, [](const Outcome& outcome) { return outcome.error != nullptr; });
  if (failed != outcomes.end()) return *failed;
  return {.answer = joined(outcomes), .observations = outcomes.size()};
}

}  // namespace

BatchInferFunction with_batches(BatchInferFunction infer, BatchInferFunction infer_batch,
                                std::size_t max_observations) {
  return
      [infer = std::move(infer), infer_batch = std::move(infer_batch), max_observations](std::vector<Dict> requests) {
        std::vector<Outcome> outcomes(requests.size());
        std::vector<Dict> others;
        std::vector<std::size_t> places;  // of others, in outcomes
        for (std::size_t i = 0; i < requests.size(); ++i) {
          if (requests[i].find(protocol::batch_key)) {
            outcomes[i] = outcome_of_batch(infer_batch, requests[i], max_observations);
          } else {
            others.push_back(std::move(requests[i]));
            places.push_back(i);
          }
        }
        if (others.empty()) return outcomes;
        std::vector<Outcome> results = checked(infer, std::move(others));
        for (std::size_t i = 0; i < places.size(); ++i) outcomes[places[i]] = std::move(results[i]);
        return outcomes;
      };
}

}  // namespace pi0::server
