#include "server/deadline.h"

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.h"

using namespace std::chrono_literals;
using pi0::server::Deadline;

TEST_CASE("a deadline's work runs once, unless it is replaced, cancelled or destroyed", "[deadline]") {
  boost::asio::io_context io;
  std::vector<std::string> ran;
  const auto work = [&](const char* name) { return [&ran, name] { ran.push_back(name); }; };
  Deadline deadline(io.get_executor());
  deadline.start(1ms, work("first"));
  SECTION("it runs") {
    io.run();
    CHECK(ran == std::vector<std::string>{"first"});
  }
  SECTION("replaced") {
    deadline.start(1ms, work("second"));
    io.run();
    CHECK(ran == std::vector<std::string>{"second"});
  }
  SECTION("cancelled") {
    deadline.cancel();
    io.run();
    CHECK(ran.empty());
  }
  SECTION("destroyed") {
    {
      Deadline other(io.get_executor());
      other.start(1ms, work("other"));
    }
    io.run();
    CHECK(ran == std::vector<std::string>{"first"});
  }
  SECTION("started again by its own work") {
    deadline.start(1ms, [&] { deadline.start(1ms, work("again")); });
    io.run();
    CHECK(ran == std::vector<std::string>{"again"});
  }
}

TEST_CASE("a deadline that is cancelled after it expired does not run either", "[deadline]") {
  boost::asio::io_context io;
  bool late = false;
  Deadline first(io.get_executor()), second(io.get_executor());
  first.start(1ms, [&] { second.cancel(); });
  second.start(1ms, [&] { late = true; });
  std::this_thread::sleep_for(10ms);  // both handlers are queued in one go
  io.run();
  CHECK(!late);
}
