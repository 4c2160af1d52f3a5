#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <thread>

#include "quant/formats/error_stats.h"
#include "quant/stats_book.h"
#include "support/catch.h"

namespace pi0 {
namespace {

using quant::CallError;
using quant::ErrorStats;
using quant::StatsBook;

const std::vector<CallError> calls = {{0.5, 2.0, 0}, {0.25, 4.0, 1}, {1.5, 1.0, 0}, {0.75, 3.0, 2}};

TEST_CASE("statistics over calls are mean, sample deviation and relative error", "[quant][stats]") {
  ErrorStats stats;
  CHECK_FALSE(stats.rmse());
  CHECK_FALSE(stats.rel_rmse());
  for (const CallError& call : calls) stats.add(call);
  CHECK(stats.call_count() == 4);
  CHECK(stats.mse().value() == Approx(0.75));
  CHECK(stats.rmse().value() == Approx(std::sqrt(0.75)));
  CHECK(stats.mse_std().value() == Approx(std::sqrt((0.0625 + 0.25 + 0.5625 + 0.0) / 3)));
  CHECK(stats.rel_rmse().value() == Approx(std::sqrt(0.75 / 2.5)));
  CHECK(stats.nonfinite() == 3);
}

TEST_CASE("what has no value is none", "[quant][stats]") {
  ErrorStats once;
  once.add({0.0, 0.0, 0});
  CHECK(once.rmse() == 0.0);
  CHECK_FALSE(once.mse_std());
  CHECK_FALSE(once.rel_rmse());  // 0 / 0
  ErrorStats infinite;
  infinite.add({std::numeric_limits<double>::infinity(), 1.0, 1});
  infinite.add({1.0, 1.0, 0});
  CHECK_FALSE(infinite.rmse());
  CHECK_FALSE(infinite.mse());
  CHECK_FALSE(infinite.mse_std());
}

TEST_CASE("merged statistics are those of all calls", "[quant][stats]") {
  for (std::size_t split = 0; split <= calls.size(); ++split) {
    ErrorStats all, first, second;
    for (std::size_t i = 0; i < calls.size(); ++i) {
      all.add(calls[i]);
      (i < split ? first : second).add(calls[i]);
    }
    first.merge(second);
    CHECK(first.call_count() == all.call_count());
    CHECK(first.mse().value() == Approx(all.mse().value()));
    CHECK(first.mse_std().value() == Approx(all.mse_std().value()));
    CHECK(first.rel_rmse().value() == Approx(all.rel_rmse().value()));
    CHECK(first.nonfinite() == all.nonfinite());
  }
}

TEST_CASE("requests of a batch count as if they had come one by one", "[quant][stats]") {
  const auto book_with_sites = [] {
    auto book = std::make_unique<StatsBook>();
    for (const char* layer : {"first", "second"}) book->add_site({layer, "vision", "linear", 2, 3, {}});
    return book;
  };
  const auto call_of = [](std::size_t request, std::size_t site, std::size_t turn) {
    CallError call = calls[turn];
    call.mse += static_cast<double>(site) + 10 * static_cast<double>(request);
    return call;
  };
  const auto together = book_with_sites(), alone = book_with_sites();
  for (const std::size_t turn : {0, 1}) {
    for (const std::size_t site : {0, 1}) {
      for (const std::size_t request : {0, 1, 2}) together->observe(site, request, call_of(request, site, turn));
    }
  }
  together->finish_batch({true, false, true}, StatsBook::Measured::yes);
  for (const std::size_t request : {0, 2}) {
    for (const std::size_t turn : {0, 1}) {
      for (const std::size_t site : {0, 1}) alone->observe(site, 0, call_of(request, site, turn));
    }
    alone->finish_request(StatsBook::Measured::yes);
  }
  const quant::StatsSnapshot found = together->snapshot(), expected = alone->snapshot();
  CHECK(found.requests == 2);
  CHECK(found.measured == 2);
  for (const std::size_t site : {0, 1}) {
    const ErrorStats &mine = found.sites[site].errors, &theirs = expected.sites[site].errors;
    CHECK(mine.call_count() == 4);
    CHECK(mine.mse() == theirs.mse());  // in every bit: the order is the same
    CHECK(mine.mse_std() == theirs.mse_std());
    CHECK(mine.rel_rmse() == theirs.rel_rmse());
    CHECK(mine.nonfinite() == theirs.nonfinite());
  }

  together->observe(0, 2, calls[0]);  // of a sample that the batch does not have
  CHECK_THROWS_AS(together->finish_batch({true, true}, StatsBook::Measured::yes), std::logic_error);
  together->finish_batch({true, true}, StatsBook::Measured::no);  // nothing was left of it
  together->observe(0, 0, calls[0]);
  together->finish_batch({false, false}, StatsBook::Measured::yes);  // the model failed half way
  CHECK(together->snapshot().requests == 4);
  CHECK(together->snapshot().measured == 2);
  CHECK(together->snapshot().sites[0].errors.call_count() == 4);
}

TEST_CASE("a request counts whole or not at all", "[quant][stats]") {
  StatsBook book;
  const std::size_t site = book.add_site({"layer", "vision", "linear", 2, 3, {}});
  CHECK(book.add_site({"layer", "vision", "linear", 2, 3, {}}) == site);
  book.observe(site, 0, calls[0]);
  CHECK(book.snapshot().sites[0].errors.call_count() == 0);
  book.drop_request();
  book.observe(site, 0, calls[1]);
  book.finish_request(StatsBook::Measured::yes);
  book.finish_request(StatsBook::Measured::no);
  quant::StatsSnapshot seen = book.snapshot();
  CHECK(seen.sites[0].errors.call_count() == 1);
  CHECK(seen.sites[0].errors.mse() == 0.25);
  CHECK(seen.requests == 2);
  CHECK(seen.measured == 1);
  book.reset();
  seen = book.snapshot();
  CHECK(seen.sites.size() == 1);
  CHECK(seen.sites[0].errors.call_count() == 0);
  CHECK(seen.requests == 0);
}

TEST_CASE("books merge by layer", "[quant][stats]") {
  StatsBook first, second;
  first.add_site({"a", "vision", "linear", 1, 1, {}});
  second.add_site({"b", "vision", "linear", 1, 1, {}});
  second.observe(second.add_site({"a", "vision", "linear", 1, 1, {}}), 0, calls[2]);
  second.finish_request(StatsBook::Measured::yes);
  first.merge(second);
  const quant::StatsSnapshot all = first.snapshot();
  REQUIRE(all.sites.size() == 2);
  CHECK(all.sites[0].errors.mse() == 1.5);
  CHECK(all.requests == 1);
}

TEST_CASE("readers on other threads see finished requests only", "[quant][stats]") {
  StatsBook book;
  const std::size_t site = book.add_site({"layer", "vision", "linear", 1, 1, {}});
  std::atomic<bool> done = false;
  std::atomic<bool> torn = false;
  std::thread reader([&] {
    while (!done) {
      const quant::StatsSnapshot seen = book.snapshot();
      if (seen.sites[0].errors.call_count() != 3 * seen.requests) torn = true;
    }
  });
  std::thread resetter([&] {
    for (int i = 0; i < 200; ++i) book.reset();
  });
  for (int request = 0; request < 3000; ++request) {
    for (int call = 0; call < 3; ++call) book.observe(site, 0, calls[0]);
    book.finish_request(StatsBook::Measured::yes);
  }
  resetter.join();
  done = true;
  reader.join();
  CHECK_FALSE(torn);
}

}  // namespace
}  // namespace pi0
