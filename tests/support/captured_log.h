// What is logged while this lives, in place of the log. Create it before threads that log, and let it outlive them.
#pragma once

#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace pi0::test {

class CapturedLog {
 public:
  CapturedLog() { spdlog::set_default_logger(std::make_shared<spdlog::logger>("", sink_)); }
  ~CapturedLog() { spdlog::set_default_logger(std::move(before_)); }
  CapturedLog(const CapturedLog&) = delete;
  CapturedLog& operator=(const CapturedLog&) = delete;

  std::string lines() const { return sink_->lines(); }  // each with its end of line; any thread may call

 private:
  class Sink : public spdlog::sinks::base_sink<std::mutex> {
   public:
    std::string lines() {
      const std::lock_guard lock(mutex_);
      return lines_;
    }

   protected:
    void sink_it_(const spdlog::details::log_msg& line) override {
      lines_.append(line.payload.data(), line.payload.size()) += '\n';
    }
    void flush_() override {}

   private:
    std::string lines_;
  };

  const std::shared_ptr<Sink> sink_ = std::make_shared<Sink>();
  std::shared_ptr<spdlog::logger> before_ = spdlog::default_logger();
};

}  // namespace pi0::test
