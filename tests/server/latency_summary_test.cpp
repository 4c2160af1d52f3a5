#include "server/latency_summary.h"

#include "support/captured_log.h"
#include "support/catch.h"

TEST_CASE("a line about latencies has median and worst, and there is none without requests", "[log]") {
  const pi0::test::CapturedLog log;
  pi0::server::LatencySummary latencies;
  latencies.flush();
  CHECK(log.lines().empty());
  for (const double ms : {5.0, 1.0, 40.0}) latencies.add(ms, ms / 10);
  latencies.flush();
  const std::string line = "3 requests answered: infer_ms median 5.0, worst 40.0; queue_ms median 0.5, worst 4.0\n";
  CHECK(log.lines() == line);
  latencies.flush();
  CHECK(log.lines() == line);
  latencies.add(2.0, 0.0);
  latencies.flush();
  CHECK(log.lines() == line + "1 request answered: infer_ms median 2.0, worst 2.0; queue_ms median 0.0, worst 0.0\n");
}
