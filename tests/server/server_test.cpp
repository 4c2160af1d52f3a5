#include "server/server.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <csignal>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "protocol/msgpack_numpy.h"
#include "server/backlog.h"
#include "support/captured_log.h"
#include "support/catch.h"
#include "support/fake_policy.h"
#include "support/websocket_client.h"

using namespace pi0;
using namespace std::chrono_literals;
using server::HttpResponse;
using server::Server;
using server::ServerOptions;
using test::Event;
using test::http;
using test::request_with_prompt;
using test::WebSocketClient;
using Clock = std::chrono::steady_clock;

namespace {

// A server on a free port with a fake policy, on its own thread; stopped at the end.
class RunningServer {
 public:
  explicit RunningServer(ServerOptions options = {}, const protocol::Dict& metadata = {}, std::size_t max_batch = 1) {
    spdlog::set_level(spdlog::level::off);
    options.host = "127.0.0.1";
    options.port = 0;
    if (max_batch == 1) {
      server_ = std::make_unique<Server>(options, metadata,
                                         [this](const protocol::Dict& request) { return policy.infer(request); });
    } else {
      const auto infer = [this](std::vector<protocol::Dict> requests) {
        return policy.infer_together(std::move(requests));
      };
      server_ = std::make_unique<Server>(options, metadata, infer, max_batch);
    }
    server_->add_route({"POST", "/stats/reset", [] { return HttpResponse{200, "reset\n"}; }});
    server_->add_route({"GET", "/broken", []() -> HttpResponse { throw std::runtime_error("no statistics"); }});
    server_->add_route({"GET", "/hold", [this] {  // the network thread, as a stopped process would be
                          held.arrive_and_wait();
                          held.arrive_and_wait();
                          return HttpResponse{};
                        }});
    thread_ = std::thread([this] { server_->run(); });
  }
  ~RunningServer() {
    policy.release();
    server_->stop();
    if (thread_.joinable()) thread_.join();
  }

  std::uint16_t port() const { return server_->port(); }
  void wait_for_end() { thread_.join(); }

  test::FakePolicy policy;
  std::barrier<> held{2};  // of /hold: once when it holds, once to let go

 private:
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

// A client that has read the metadata.
struct Client : WebSocketClient {
  explicit Client(const RunningServer& server, std::optional<int> receive_buffer_bytes = {},
                  std::string_view target = "/")
      : WebSocketClient(server.port(), receive_buffer_bytes, target) {
    REQUIRE(next().kind == "binary");
  }
  std::string ask(const std::string& prompt) {
    send(request_with_prompt(prompt));
    const protocol::Dict answer = next_answer();
    return std::get<std::string>(*answer.find("actions"));
  }
};

double timing(const protocol::Dict& answer, const char* name) {
  const auto& times = std::get<protocol::Dict>(*answer.find("server_timing"));
  const protocol::Value* value = times.find(name);
  return value ? std::get<double>(*value) : -1;
}

bool has_metric(std::uint16_t port, const std::string& line) {
  return http(port, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").find("\n" + line + "\n") != std::string::npos;
}

// What is counted after the client has seen it comes soon.
void becomes(const RunningServer& server, const std::string& line) {
  const auto deadline = Clock::now() + test::patience;
  while (!has_metric(server.port(), line) && Clock::now() < deadline) std::this_thread::sleep_for(10ms);
  INFO(line);
  CHECK(has_metric(server.port(), line));
}

std::string close_frame(std::uint16_t code) { return {static_cast<char>(code >> 8), static_cast<char>(code & 0xFF)}; }

}  // namespace

TEST_CASE("the first frame is the metadata", "[server]") {
  SECTION("one byte for an empty map") {
    const RunningServer server;
    WebSocketClient client(server.port());
    CHECK(client.next().payload == "\x80");
  }
  SECTION("as it was given") {
    protocol::Dict metadata;
    metadata.set("reset_pose", protocol::List{{0.5}});
    const RunningServer server({}, metadata);
    WebSocketClient client(server.port());
    const protocol::Dict seen = client.next_answer();
    CHECK(protocol::encode(seen) == protocol::encode(metadata));
  }
}

TEST_CASE("an answer ends with the server's timings", "[server]") {
  const RunningServer server;
  Client client(server);
  client.send(request_with_prompt("first"));
  const protocol::Dict first = client.next_answer();
  REQUIRE(first.entries().size() == 2);
  CHECK(first.entries()[0].first == "actions");
  CHECK(first.entries()[1].first == "server_timing");
  CHECK(timing(first, "infer_ms") >= 0);
  CHECK(timing(first, "queue_ms") >= 0);
  CHECK(timing(first, "decode_ms") >= 0);
  CHECK(timing(first, "prev_total_ms") == -1);

  client.send(request_with_prompt("second"));
  const protocol::Dict second = client.next_answer();
  CHECK(timing(second, "prev_total_ms") >= timing(first, "infer_ms"));

  // The wait for a request counts, from when the server has done with the last answer: a while after it is here.
  std::this_thread::sleep_for(1s);
  client.send(request_with_prompt("third"));
  client.next_answer();
  client.send(request_with_prompt("fourth"));
  CHECK(timing(client.next_answer(), "prev_total_ms") >= 100);

  Client other(server);
  other.send(request_with_prompt("its first"));
  CHECK(timing(other.next_answer(), "prev_total_ms") == -1);
}

TEST_CASE("queue_ms is the wait for the model", "[server]") {
  RunningServer server;
  Client first(server), second(server);
  first.send(request_with_prompt("wait"));
  server.policy.wait_for_starts(1);
  second.send(request_with_prompt("behind it"));
  second.send("", {.opcode = test::ping});
  CHECK(second.next().kind == "pong");
  std::this_thread::sleep_for(50ms);
  server.policy.release();
  const protocol::Dict waited = first.next_answer(), queued = second.next_answer();
  CHECK(timing(waited, "infer_ms") >= 50);
  CHECK(timing(queued, "queue_ms") >= 50);
}

protocol::Dict request_of(const std::string& endpoint) {
  protocol::Dict request = request_with_prompt("of an endpoint");
  request.set("endpoint", endpoint);
  return request;
}

TEST_CASE("a client may name the endpoint", "[server][endpoint]") {
  ServerOptions options;
  SECTION("and the policy reads every field") {}
  SECTION("and the policy does not read the endpoint") { options.decode_limits.fields = {"prompt"}; }
  RunningServer server(options);
  Client client(server);
  CHECK(client.ask("no endpoint") == "no endpoint");
  client.send(request_of("infer"));
  const protocol::Dict second = client.next_answer();
  CHECK(std::get<std::string>(*second.find("actions")) == "of an endpoint");
  CHECK(timing(second, "prev_total_ms") >= 0);

  client.send(request_of("reset"));
  const Event reset = client.next();
  CHECK(reset.kind == "text");
  CHECK(reset.payload == "reset successful");
  client.send(request_of("infer"));
  CHECK(timing(client.next_answer(), "prev_total_ms") == -1);
  CHECK(server.policy.wait_for_starts(3).size() == 3);
  becomes(server, "pi0_requests_total{result=\"reset\"} 1");
  becomes(server, "pi0_requests_total{result=\"answered\"} 3");
  becomes(server, "pi0_inference_seconds_count 3");

  client.send(request_of("explode"));
  CHECK(client.next().payload == "endpoint: found 'explode', expected 'infer' or 'reset'");
  CHECK(client.next().kind == "close 1011");
}

TEST_CASE("a reset waits for the requests before it", "[server][endpoint]") {
  RunningServer server;
  Client client(server);
  client.send(request_with_prompt("wait"));
  client.send(request_of("reset"));
  client.send(request_with_prompt("after"));
  server.policy.release();
  CHECK(std::get<std::string>(*client.next_answer().find("actions")) == "wait");
  CHECK(client.next().payload == "reset successful");
  CHECK(std::get<std::string>(*client.next_answer().find("actions")) == "after");
}

TEST_CASE("every path is served, and vLLM-Omni's is answered with the actions alone", "[server][endpoint]") {
  const RunningServer server;
  for (const char* target : {"/openpi/policy", "/api/v1/session?codec.fps=10", "/stats/reset", "/healthz?x"}) {
    Client client(server, {}, target);
    CHECK(client.ask("hello") == "hello");
  }
  for (const char* target : {"/v1/realtime/robot/openpi", "/v1/realtime/robot/openpi?model=pi0"}) {
    Client client(server, {}, target);
    client.send(request_of("infer"));
    CHECK(client.next().payload == "\xaeof an endpoint");  // msgpack of a str of 14 bytes
    client.send(request_of("reset"));
    CHECK(client.next().payload == "reset successful");
  }
}

TEST_CASE("the log has a line for each request and sums them up", "[server][log]") {
  const test::CapturedLog log;
  {
    const RunningServer server({.summary_interval = 50ms});
    spdlog::set_level(spdlog::level::debug);
    Client client(server);
    client.ask("hello");
    const auto deadline = Clock::now() + test::patience;
    while (log.lines().find("1 request answered: infer_ms median") == std::string::npos && Clock::now() < deadline) {
      std::this_thread::sleep_for(10ms);
    }
  }
  spdlog::set_level(spdlog::level::off);
  CHECK_THAT(log.lines(),
             Catch::Matches("(.|\n)*127.0.0.1:[0-9]+: answered 14 bytes with [0-9]+ in [0-9.]+ ms: queue_ms "
                            "[0-9.]+, decode_ms [0-9.]+, infer_ms [0-9.]+\n(.|\n)*"));
  CHECK_THAT(log.lines(), Catch::Contains("1 request answered: infer_ms median"));
}

TEST_CASE("pings, handshakes and health checks are answered during an inference", "[server]") {
  RunningServer server;
  Client busy(server);
  busy.send(request_with_prompt("wait"));
  server.policy.wait_for_starts(1);

  busy.send("same connection", {.opcode = test::ping});
  CHECK(busy.next().payload == "same connection");
  Client other(server);
  other.send("other connection", {.opcode = test::ping});
  CHECK(other.next().payload == "other connection");
  CHECK(http(server.port(), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").ends_with("OK\n"));

  server.policy.release();
  CHECK(std::get<std::string>(*busy.next_answer().find("actions")) == "wait");
}

TEST_CASE("a refused request ends its connection with the reason, and no other", "[server]") {
  const RunningServer server;
  Client other(server);
  Client client(server);
  const auto refusal = [&] {
    const Event text = client.next();
    CHECK(text.kind == "text");
    CHECK(client.next().kind == "close 1011");
    client.send(close_frame(1011), {.opcode = test::close});
    CHECK(client.next().kind == "end");
    return text.payload;
  };
  SECTION("by the policy") {
    client.send(request_with_prompt("fail"));
    CHECK(refusal() == "'prompt': the policy was told to fail");
  }
  SECTION("not msgpack") {
    client.send("\xc1");
    CHECK(refusal() == "message: byte 0 is not msgpack");
  }
  SECTION("a text message") {
    client.send("{}", {.opcode = test::text});
    CHECK(refusal() == "message: found text, expected a binary msgpack map");
  }
  SECTION("an empty message") {
    client.send("");
    CHECK(refusal() == "message: the bytes end in the middle of a value, at byte 0");
  }
  SECTION("after good ones that were sent with it") {
    client.send(request_with_prompt("good"));
    client.send("\xc1");
    client.send(request_with_prompt("never read"));
    CHECK(std::get<std::string>(*client.next_answer().find("actions")) == "good");
    refusal();
  }
  CHECK(other.ask("still here") == "still here");
}

TEST_CASE("requests sent without waiting are answered in order", "[server]") {
  const RunningServer server;
  Client client(server);
  std::string all;
  for (int i = 0; i < 40; ++i) {
    const auto bytes = protocol::encode(request_with_prompt(std::to_string(i)));
    all += test::frame_bytes({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  client.tcp().send(all);
  for (int i = 0; i < 40; ++i) {
    REQUIRE(std::get<std::string>(*client.next_answer().find("actions")) == std::to_string(i));
  }
}

TEST_CASE("connections take turns in the order of their requests", "[server]") {
  RunningServer server;
  Client first(server);
  first.send(request_with_prompt("wait"));
  server.policy.wait_for_starts(1);
  std::vector<std::unique_ptr<Client>> clients;
  for (const char* prompt : {"a", "b", "c"}) {
    clients.push_back(std::make_unique<Client>(server));
    clients.back()->send(request_with_prompt(prompt));
    clients.back()->send("", {.opcode = test::ping});  // its pong: the request was read
    CHECK(clients.back()->next().kind == "pong");
  }
  server.policy.release();
  for (auto& client : clients) client->next_answer();
  CHECK(server.policy.wait_for_starts(4) == std::vector<std::string>{"wait", "a", "b", "c"});
}

TEST_CASE("a request whose client is gone before its turn is not inferred", "[server]") {
  RunningServer server;
  Client first(server);
  first.send(request_with_prompt("wait"));
  server.policy.wait_for_starts(1);
  {
    Client gone(server);
    gone.send(request_with_prompt("abandoned"));
    gone.send("", {.opcode = test::ping});
    CHECK(gone.next().kind == "pong");
    gone.tcp().reset();
  }
  Client last(server);  // its handshake comes after the reset was seen
  last.send(request_with_prompt("last"));
  last.send("", {.opcode = test::ping});
  CHECK(last.next().kind == "pong");
  server.policy.release();
  last.next_answer();
  CHECK(server.policy.wait_for_starts(2) == std::vector<std::string>{"wait", "last"});
}

TEST_CASE("requests that wait together are answered together, a bad one refused alone", "[server][batch]") {
  RunningServer server({}, {}, /*max_batch=*/3);
  Client first(server);
  first.send(request_with_prompt("wait"));
  server.policy.wait_for_starts(1);
  std::vector<std::unique_ptr<Client>> clients;
  for (const char* prompt : {"a", "gone", "fail", "b", "c"}) {
    clients.push_back(std::make_unique<Client>(server));
    clients.back()->send(request_with_prompt(prompt));
    clients.back()->send("", {.opcode = test::ping});  // its pong: the request was read
    CHECK(clients.back()->next().kind == "pong");
  }
  clients[1]->tcp().reset();
  Client after(server);  // its handshake comes after the reset was seen
  server.policy.release();

  CHECK(std::get<std::string>(*first.next_answer().find("actions")) == "wait");
  const protocol::Dict a = clients[0]->next_answer();
  const protocol::Dict b = clients[3]->next_answer();
  CHECK(std::get<std::string>(*a.find("actions")) == "a");
  CHECK(std::get<std::string>(*b.find("actions")) == "b");
  CHECK(timing(a, "infer_ms") == timing(b, "infer_ms"));
  CHECK(clients[2]->next().payload == "'prompt': the policy was told to fail");
  CHECK(clients[2]->next().kind == "close 1011");
  CHECK(std::get<std::string>(*clients[4]->next_answer().find("actions")) == "c");
  CHECK(server.policy.batches() == std::vector<std::string>{"wait", "a fail b", "c"});
  CHECK(after.ask("alone") == "alone");
}

TEST_CASE("shutdown answers the running request, drops the others and closes with 1001", "[server]") {
  RunningServer server;
  Client busy(server);
  Client waiting(server);
  Client idle(server);
  test::TcpClient silent(server.port());
  busy.send(request_with_prompt("wait"));
  server.policy.wait_for_starts(1);
  waiting.send(request_with_prompt("never"));
  waiting.send("", {.opcode = test::ping});
  CHECK(waiting.next().kind == "pong");

  const auto signal = GENERATE(SIGINT, SIGTERM);
  std::raise(signal);
  for (Client* client : {&waiting, &idle}) {
    CHECK(client->next().kind == "close 1001");
    client->send(close_frame(1001), {.opcode = test::close});
    CHECK(client->next().kind == "end");
    client->tcp().reset();
  }
  CHECK(silent.receive_all().empty());
  CHECK_THROWS_WITH(test::TcpClient(server.port()), Catch::Contains("refused"));

  server.policy.release();
  CHECK(std::get<std::string>(*busy.next_answer().find("actions")) == "wait");
  CHECK(busy.next().kind == "close 1001");
  busy.send(close_frame(1001), {.opcode = test::close});
  CHECK(busy.next().kind == "end");
  busy.tcp().reset();
  server.wait_for_end();
  CHECK(server.policy.wait_for_starts(1) == std::vector<std::string>{"wait"});
}

TEST_CASE("a drain refuses new clients and ends when the last one is gone", "[server]") {
  RunningServer server({.drain_time = 600s});
  Client client(server);
  std::raise(SIGTERM);
  const auto get = [&](const std::string& path) {
    return http(server.port(), "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
  };
  const auto deadline = Clock::now() + test::patience;
  while (!get("/readyz").starts_with("HTTP/1.1 503") && Clock::now() < deadline) std::this_thread::sleep_for(10ms);
  CHECK(get("/readyz").starts_with("HTTP/1.1 503"));
  CHECK(get("/healthz").ends_with("the server is shutting down\n"));
  CHECK(get("/livez").starts_with("HTTP/1.1 200"));
  CHECK(http(server.port(), test::upgrade_request()).starts_with("HTTP/1.1 503"));
  CHECK(client.ask("a") == "a");
  CHECK(client.ask("b") == "b");
  client.tcp().reset();
  server.wait_for_end();
}

TEST_CASE("without clients there is nothing to drain", "[server]") {
  RunningServer server({.drain_time = 600s});
  std::raise(SIGTERM);
  server.wait_for_end();
}

TEST_CASE("in the second half of a drain every request is answered, and the connection closed with its answer",
          "[server]") {
  RunningServer server({.drain_time = 4s});
  Client asking(server), running(server), queued(server), idle(server);
  std::raise(SIGTERM);
  std::size_t asked = 0;
  std::optional<Event> last;
  while (!last) {
    REQUIRE(asking.ask("a") == "a");
    ++asked;
    try {
      last = asking.next(0ms);  // only what came with the answer: a client never asks in vain
    } catch (const std::runtime_error&) {
      std::this_thread::sleep_for(20ms);
    }
  }
  CHECK(last->kind == "close 1001");
  running.send(request_with_prompt("wait"));
  server.policy.wait_for_starts(asked + 1);
  queued.send(request_with_prompt("b"));
  queued.send("", {.opcode = test::ping});
  CHECK(queued.next().kind == "pong");
  server.policy.release();
  CHECK(std::get<std::string>(*running.next_answer().find("actions")) == "wait");
  CHECK(std::get<std::string>(*queued.next_answer().find("actions")) == "b");
  for (Client* client : {&running, &queued, &idle}) {
    CHECK(client->next().kind == "close 1001");
    client->tcp().reset();
  }
  asking.tcp().reset();
  server.wait_for_end();
}

TEST_CASE("shutdown does not wait for clients that never answer", "[server]") {
  RunningServer server({.handshake_timeout = 60s, .end_timeout = 200ms});
  Client client(server);
  test::TcpClient silent(server.port());
  const auto start = Clock::now();
  std::raise(SIGTERM);
  server.wait_for_end();
  CHECK(Clock::now() - start < 30s);
  CHECK(client.next().kind == "close 1001");
}

TEST_CASE("shutdown gives the running request all the time it needs", "[server]") {
  RunningServer server({.end_timeout = 100ms});
  Client client(server);
  client.send(request_with_prompt("wait"));
  server.policy.wait_for_starts(1);
  std::raise(SIGTERM);
  std::this_thread::sleep_for(1s);
  server.policy.release();
  CHECK(std::get<std::string>(*client.next_answer().find("actions")) == "wait");
  server.wait_for_end();
}

TEST_CASE("a client that leaves during shutdown does not delay it", "[server]") {
  RunningServer server({.handshake_timeout = 60s, .end_timeout = 60s});
  auto client = std::make_unique<Client>(server);
  test::TcpClient holder(server.port());
  holder.send("GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n");
  server.held.arrive_and_wait();
  SECTION("with a closing handshake") { client->send(close_frame(1000), {.opcode = test::close}); }
  SECTION("without a word") {}
  SECTION("with a reset") { client->tcp().reset(); }
  client.reset();
  std::raise(SIGTERM);
  const auto start = Clock::now();
  server.held.arrive_and_wait();
  holder.reset();
  server.wait_for_end();
  CHECK(Clock::now() - start < 30s);
}

TEST_CASE("metrics count every request by its result", "[server][metrics]") {
  RunningServer server;
  Client good(server);
  good.ask("one");
  good.ask("two");
  becomes(server, "pi0_requests_total{result=\"answered\"} 2");
  becomes(server, "pi0_inference_seconds_count 2");
  becomes(server, "pi0_request_seconds_count 2");
  Client unreadable(server);
  unreadable.send("\xc1");
  CHECK(unreadable.next().kind == "text");
  becomes(server, "pi0_requests_total{result=\"refused\"} 1");
  Client unlucky(server);
  unlucky.send(request_with_prompt("fail"));
  CHECK(unlucky.next().kind == "text");
  becomes(server, "pi0_requests_total{result=\"failed\"} 1");

  Client busy(server);
  busy.send(request_with_prompt("wait"));
  becomes(server, "pi0_model_busy 1");
  {
    Client gone(server);
    gone.send(request_with_prompt("abandoned"));
    becomes(server, "pi0_queue_length 1");
    gone.tcp().reset();
  }
  becomes(server, "pi0_requests_total{result=\"dropped\"} 1");
  becomes(server, "pi0_queue_length 0");
  unreadable.tcp().reset();
  unlucky.tcp().reset();
  becomes(server, "pi0_connections 2");
  server.policy.release();
  busy.next_answer();
  becomes(server, "pi0_requests_total{result=\"answered\"} 3");
}

TEST_CASE("a client that does not read its answer is closed and delays nobody", "[server][limits]") {
  const RunningServer server({.write_timeout = 300ms});
  Client slow(server, /*receive_buffer_bytes=*/65536);
  // Echoed, they are more than any system's send buffer holds.
  const std::size_t size = std::size_t{15} << 20, count = 4;
  for (std::size_t i = 0; i < count; ++i) slow.send(request_with_prompt(std::string(size, 'x')));
  Client other(server);
  CHECK(other.ask("meanwhile") == "meanwhile");
  becomes(server, "pi0_connections 1");
  std::string received;
  while (slow.tcp().receive(received, Clock::now() + test::patience)) {
  }
  CHECK(received.size() < count * size);
  CHECK(other.ask("afterwards") == "afterwards");
}

TEST_CASE("a client is closed after --idle-timeout without a request", "[server][limits]") {
  RunningServer server({.idle_timeout = 2s});
  Client client(server);
  client.send(request_with_prompt("wait"));
  server.policy.wait_for_starts(1);
  std::this_thread::sleep_for(2500ms);  // the model's time is not the client's
  server.policy.release();
  CHECK(std::get<std::string>(*client.next_answer().find("actions")) == "wait");
  CHECK(client.ask("again") == "again");
  const Event end = client.next();
  CHECK(end.kind == "close 1008");
}

TEST_CASE("all clients' waiting requests together have a limit", "[server][limits]") {
  RunningServer server({.max_waiting_bytes = 1'000'000});
  Client busy(server);
  busy.send(request_with_prompt("wait"));
  server.policy.wait_for_starts(1);
  Client first(server);
  first.send(request_with_prompt(std::string(600'000, 'a')));
  first.send("", {.opcode = test::ping});
  CHECK(first.next().kind == "pong");
  Client second(server);
  second.send(request_with_prompt(std::string(600'000, 'b')));
  CHECK(second.next().kind == "close 1013");
  Client begun(server);  // as do the fragments of one that never ends
  begun.send(std::string(600'000, 'c'), {.fin = false});
  CHECK(begun.next().kind == "close 1013");
  server.policy.release();
  busy.next_answer();
  CHECK(std::get<std::string>(*first.next_answer().find("actions")).size() == 600'000);
  Client third(server);
  CHECK(third.ask(std::string(600'000, 'd')).size() == 600'000);
}

TEST_CASE("clients that hold most of the waiting bytes make room for new ones", "[server][limits]") {
  RunningServer server({.max_waiting_bytes = 4'000'000});
  Client busy(server);
  busy.send(request_with_prompt("wait"));
  server.policy.wait_for_starts(1);
  std::vector<std::unique_ptr<Client>> hogs;
  SECTION("with messages that do not end") {
    for (int i = 0; i < 4; ++i) {
      hogs.push_back(std::make_unique<Client>(server));
      hogs.back()->send(std::string(999'000, 'x'), {.fin = false});
    }
  }
  SECTION("with requests that wait") {
    for (int i = 0; i < 4; ++i) {
      hogs.push_back(std::make_unique<Client>(server));
      hogs.back()->send(request_with_prompt(std::string(999'000, 'x')));
    }
  }
  for (const auto& hog : hogs) {
    hog->send("", {.opcode = test::ping});
    CHECK(hog->next().kind == "pong");
  }
  std::vector<std::unique_ptr<Client>> others;
  for (int i = 0; i < 10; ++i) {
    others.push_back(std::make_unique<Client>(server));
    others.back()->send(request_with_prompt(std::string(20'000, 'y')));
    others.back()->send("", {.opcode = test::ping});
    CHECK(others.back()->next().kind == "pong");
  }
  server.policy.release();
  busy.next_answer();
  for (const auto& other : others) {
    CHECK(std::get<std::string>(*other->next_answer().find("actions")).size() == 20'000);
  }
}

TEST_CASE("an account that cannot give way is skipped", "[server][limits]") {
  server::Backlog backlog(100);
  std::vector<std::string> gone;
  std::optional<server::Backlog::Share> small_share;
  server::Backlog::Account at_work(backlog, [&] {
    gone.push_back("at work");
    return false;
  });
  server::Backlog::Account small(backlog, [&] {
    gone.push_back("small");
    small_share.reset();
    return true;
  });
  server::Backlog::Share working(at_work);
  working.add(90);
  working.finish();
  small_share.emplace(small);
  small_share->add(20);
  small_share->finish();
  backlog.make_room();
  CHECK(gone == std::vector<std::string>{"at work", "small"});
}

TEST_CASE("a connection is closed when its message arrives too slowly", "[server][limits]") {
  const RunningServer server({.message_timeout = 500ms});
  Client stuck(server);
  stuck.send("half", {.fin = false});
  CHECK(stuck.next().kind == "close 1008");
  Client whole(server);
  CHECK(whole.ask("one") == "one");
  std::this_thread::sleep_for(1s);
  CHECK(whole.ask("two") == "two");
}

TEST_CASE("connections without a request have few places, and the oldest is closed", "[server][limits]") {
  const RunningServer server({.max_connections = 2});
  std::vector<std::unique_ptr<test::TcpClient>> silent;
  for (int i = 0; i < 100; ++i) silent.push_back(std::make_unique<test::TcpClient>(server.port()));
  CHECK(silent.front()->receive_all().empty());
  Client first(server), second(server);
  CHECK(first.ask("served") == "served");
  CHECK(http(server.port(), test::upgrade_request()).starts_with("HTTP/1.1 503 "));
  for (int i = 0; i < 100; ++i) {  // every place is taken
    silent.push_back(std::make_unique<test::TcpClient>(server.port()));
    silent.back()->send("GET /heal");
  }
  for (int i = 0; i < 20; ++i) {  // who has an answer and stays goes first
    silent.push_back(std::make_unique<test::TcpClient>(server.port()));
    silent.back()->send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
  }
  CHECK(http(server.port(), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").ends_with("OK\n"));
  second.tcp().reset();
  becomes(server, "pi0_connections 1");
  CHECK(Client(server).ask("its place is free") == "its place is free");
}

TEST_CASE("a web page of another site cannot connect", "[server][security]") {
  const RunningServer server({.allowed_origins = {"https://dashboard"}, .allowed_hosts = {"robot"}});
  const auto status = [&](const std::string& headers) {
    return http(server.port(), "GET /livez HTTP/1.1\r\n" + headers + "\r\n").substr(9, 3);
  };
  for (const char* host : {"localhost:8000", "localhost", "127.0.0.1:9", "[::1]:8000", "127.1.2.3", "robot:1",
                           "LOCALHOST:1", "localhost.", "127.1", "[::ffff:127.0.0.1]:8000"}) {
    CHECK(status("Host: " + std::string(host) + "\r\n") == "200");
  }
  for (const char* host : {"site", "127.0.0.1.site", "localhost.site:8000", "192.168.0.1"}) {
    CHECK(status("Host: " + std::string(host) + "\r\n") == "403");
  }
  CHECK(status("Host: localhost:1\r\nOrigin: https://dashboard\r\n") == "200");
  CHECK(status("Host: localhost:1\r\nOrigin: http://localhost:1\r\n") == "200");
  for (const char* origin : {"https://site", "http://localhost:2", "null", "https://dashboard.site", "http://robot"}) {
    CHECK(status("Host: localhost:1\r\nOrigin: " + std::string(origin) + "\r\n") == "403");
  }
  std::string upgrade = test::upgrade_request();
  upgrade.insert(upgrade.size() - 2, "Origin: https://site\r\n");
  CHECK(http(server.port(), upgrade).starts_with("HTTP/1.1 403 "));
}

TEST_CASE("a model that fails repeatedly makes the server unhealthy", "[server][health]") {
  std::atomic<bool> is_ill = true;
  const auto infer = [&](const std::vector<protocol::Dict>& requests) {
    if (is_ill) throw std::bad_alloc();
    return std::vector<server::Outcome>(requests.size());
  };
  ServerOptions options{.host = "127.0.0.1", .port = 0};
  SECTION("until it answers again") {}
  SECTION("and the server stops if it is told to") { options.exit_on_failure = true; }
  Server server(options, {}, infer, 1);
  std::string failure;
  std::thread thread([&] {
    try {
      server.run();
    } catch (const std::runtime_error& error) {
      failure = error.what();
    }
  });
  const auto get = [&](const std::string& path) {
    return http(server.port(), "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n").substr(9, 3);
  };
  const auto ask = [&] {
    WebSocketClient client(server.port());
    client.next();
    client.send(request_with_prompt("x"));
    return client.next().kind;
  };
  CHECK(ask() == "text");
  CHECK(get("/healthz") == "200");
  CHECK(ask() == "text");
  if (!options.exit_on_failure) {
    CHECK(get("/healthz") == "503");
    CHECK(get("/readyz") == "503");
    CHECK(get("/livez") == "200");
    is_ill = false;
    CHECK(ask() == "binary");
    CHECK(get("/healthz") == "200");
    server.stop();
  }
  thread.join();
  CHECK(failure.empty() == !options.exit_on_failure);
}

TEST_CASE("under load every client has its own answers, whatever others send", "[server][load]") {
  const RunningServer server({}, {}, /*max_batch=*/4);
  constexpr int good_clients = 6, requests_each = 100, rounds = 40;
  std::atomic<int> answers = 0, refusals = 0, failures = 0;
  const auto in_thread = [&](const std::function<void()>& work) {
    return std::thread([&failures, work] {
      try {
        work();
      } catch (const std::exception&) {
        ++failures;
      }
    });
  };
  std::vector<std::thread> threads;
  for (int client_number = 0; client_number < good_clients; ++client_number) {
    threads.push_back(in_thread([&, client_number] {
      WebSocketClient client(server.port());
      client.next();
      for (int i = 0; i < requests_each; ++i) {
        const std::string prompt = std::to_string(client_number) + "/" + std::to_string(i);
        client.send(request_with_prompt(prompt));
        if (std::get<std::string>(*client.next_answer().find("actions")) == prompt) ++answers;
      }
    }));
  }
  threads.push_back(in_thread([&] {
    for (int i = 0; i < rounds; ++i) {
      WebSocketClient client(server.port());
      client.next();
      i % 2 == 0 ? client.send("\xc1") : client.send(request_with_prompt("fail"));
      if (client.next().kind == "text" && client.next().kind == "close 1011") ++refusals;
    }
  }));
  threads.push_back(in_thread([&] {  // gone in the middle of a message, or before its answer
    for (int i = 0; i < rounds; ++i) {
      WebSocketClient client(server.port());
      i % 2 == 0 ? client.send("half", {.fin = false}) : client.send(request_with_prompt("abandoned"));
      client.tcp().reset();
    }
  }));
  threads.push_back(in_thread([&] {
    for (int i = 0; i < rounds; ++i) http(server.port(), "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
  }));
  for (std::thread& thread : threads) thread.join();
  CHECK(failures == 0);
  CHECK(answers == good_clients * requests_each);
  CHECK(refusals == rounds);
}

TEST_CASE("a client's requests are read ahead up to a limit", "[server][limits]") {
  RunningServer server({.max_requests_ahead = 2});
  Client client(server);
  for (const char* prompt : {"wait", "a", "b", "c"}) client.send(request_with_prompt(prompt));
  server.policy.wait_for_starts(1);
  client.send("unread", {.opcode = test::ping});
  CHECK_THROWS(client.next(300ms));
  server.policy.release();
  std::vector<std::string> seen;
  for (int i = 0; i < 5; ++i) seen.push_back(client.next().kind);
  std::ranges::sort(seen);
  CHECK(seen == std::vector<std::string>{"binary", "binary", "binary", "binary", "pong"});
}

TEST_CASE("a client that floods the server does not take the others' turns", "[server][limits]") {
  RunningServer server;
  Client flood(server);
  flood.send(request_with_prompt("wait"));
  server.policy.wait_for_starts(1);
  for (int i = 0; i < 50; ++i) flood.send(request_with_prompt("flood"));
  Client other(server);
  other.send(request_with_prompt("other"));
  other.send("", {.opcode = test::ping});
  CHECK(other.next().kind == "pong");
  server.policy.release();
  other.next_answer();
  const std::vector<std::string> starts = server.policy.wait_for_starts(2);
  CHECK(std::ranges::find(starts, "other") - starts.begin() <= 2);
  for (int i = 0; i < 51; ++i) REQUIRE(flood.next().kind == "binary");
}

TEST_CASE("with an API key everything but /healthz requires it", "[server][security]") {
  const RunningServer server({.api_key = "secret"});
  const auto ask = [&](const std::string& request, const std::string& header) {
    return http(server.port(), request + " HTTP/1.1\r\nHost: localhost\r\n" + header + "\r\n");
  };
  const auto starts = [](const std::string& text, const std::string& with) { return text.starts_with(with); };
  CHECK(starts(ask("GET /healthz", ""), "HTTP/1.1 200"));
  CHECK(starts(ask("GET /metrics", ""), "HTTP/1.1 401"));
  CHECK(starts(ask("POST /stats/reset", ""), "HTTP/1.1 401"));
  CHECK(starts(ask("GET /metrics", "Authorization: Api-Key secret\r\n"), "HTTP/1.1 200"));
  for (const char* wrong :
       {"Api-Key secre", "Api-Key secrets", "Api-Key Secret", "Bearer secret", "secret", "Api-Key "}) {
    CHECK(starts(ask("GET /metrics", std::string("Authorization: ") + wrong + "\r\n"), "HTTP/1.1 401"));
  }
  CHECK(starts(http(server.port(), test::upgrade_request()), "HTTP/1.1 401"));
}

TEST_CASE("a taken port is named", "[server]") {
  const RunningServer server;
  const ServerOptions options{.host = "127.0.0.1", .port = server.port()};
  CHECK_THROWS_WITH(Server(options, {}, [](const protocol::Dict& request) { return request; }),
                    "port " + std::to_string(server.port()) + " on 127.0.0.1 is taken: Address already in use");
}

TEST_CASE("a client that does not answer pings is closed, one that does is kept", "[server]") {
  RunningServer server({.handshake_timeout = 200ms, .keepalive_interval = 1500ms});
  Client mute(server);
  Client lively(server);
  lively.send(request_with_prompt("wait"));
  server.policy.wait_for_starts(1);
  for (int i = 0; i < 3; ++i) {
    const Event event = lively.next();
    REQUIRE(event.kind == "ping");
    lively.send(event.payload, {.opcode = test::pong});
  }
  CHECK(mute.next().kind == "ping");
  CHECK(mute.next().kind == "close 1011");
  CHECK(mute.next().kind == "end");
  server.policy.release();
}

TEST_CASE("a client that does not read its answers is cut off", "[server]") {
  RunningServer server({.handshake_timeout = 200ms, .keepalive_interval = 200ms});
  Client client(server, /*receive_buffer_bytes=*/65536);
  const std::string prompt(std::size_t{15} << 20, 'x');
  for (int i = 0; i < 4; ++i) client.send(request_with_prompt(prompt));
  for (int i = 0; i < 12; ++i) client.send(request_with_prompt("too far ahead to be read"));
  becomes(server, "pi0_connections 0");
  CHECK(client.tcp().receive_all().size() < 4 * prompt.size());
  CHECK(Client(server).ask("others are served") == "others are served");
}

TEST_CASE("messages longer than the limit are refused at their header", "[server]") {
  const RunningServer server({.max_message_bytes = 1000});
  Client client(server);
  SECTION("in one frame") { client.send("x", {.announced_size = 1001}); }
  SECTION("absurdly long") { client.send("x", {.announced_size = std::uint64_t{1} << 62}); }
  SECTION("in fragments") {
    client.send(std::string(600, 'x'), {.fin = false});
    client.send(std::string(600, 'x'), {.opcode = test::continuation});
  }
  CHECK(client.next().kind == "close 1009");
  CHECK(client.next().kind == "end");
}

TEST_CASE("a message of exactly the limit is read, also in fragments", "[server]") {
  const RunningServer server({.max_message_bytes = 4000});
  const auto bytes = protocol::encode(request_with_prompt(std::string(3989, 'x')));
  const std::string_view message(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  REQUIRE(message.size() == 4000);
  Client client(server);
  client.send(message);
  client.next_answer();
  client.send(message.substr(0, 1), {.fin = false});
  client.send("", {.opcode = test::continuation, .fin = false});
  client.send("between", {.opcode = test::ping});
  client.send(message.substr(1), {.opcode = test::continuation});
  CHECK(client.next().payload == "between");
  client.next_answer();
}

TEST_CASE("violations of the WebSocket protocol are closed with their code", "[server]") {
  const RunningServer server;
  Client client(server);
  const auto [bytes, code] = GENERATE(table<std::string, std::string>({
      {test::frame_bytes("x", {.masked = false}), "close 1002"},
      {test::frame_bytes("x", {.reserved = 4}), "close 1002"},
      {test::frame_bytes("x", {.opcode = test::continuation}), "close 1002"},
      {test::frame_bytes("x", {.opcode = static_cast<test::Opcode>(3)}), "close 1002"},
      {test::frame_bytes(std::string(126, 'x'), {.opcode = test::ping}), "close 1002"},
      {test::frame_bytes("\xff\xfe", {.opcode = test::text}), "close 1007"},
      {test::frame_bytes("\x03\xe8why", {.opcode = test::close}), "close 1000"},
      {test::frame_bytes("\x0b\xb8", {.opcode = test::close}), "close 3000"},
  }));
  client.tcp().send(bytes);
  CHECK(client.next().kind == code);
  CHECK(client.next().kind == "end");
}

TEST_CASE("plain HTTP requests", "[server][http]") {
  const RunningServer server;
  const auto get = [&](const std::string& head) { return http(server.port(), head + "\r\nHost: localhost\r\n\r\n"); };
  SECTION("routes") {
    const std::string health = get("GET /healthz HTTP/1.1");
    CHECK(health.starts_with("HTTP/1.1 200 OK\r\n"));
    CHECK(health.find("Content-Type: text/plain; charset=utf-8\r\n") != std::string::npos);
    CHECK(health.ends_with("\r\n\r\nOK\n"));
    CHECK(get("POST /stats/reset HTTP/1.1").ends_with("\r\n\r\nreset\n"));
    CHECK(get("GET /broken HTTP/1.1").starts_with("HTTP/1.1 500 "));
    for (const char* target :
         {"/healthz?verbose", "/healthz?", "http://robot:8000/healthz", "http://robot/healthz?x=/y"}) {
      CHECK(get("GET " + std::string(target) + " HTTP/1.1").ends_with("\r\n\r\nOK\n"));
    }
    const std::string head = get("HEAD /healthz HTTP/1.1");
    CHECK(head.starts_with("HTTP/1.1 200 OK\r\n"));
    CHECK(head.find("Content-Length: 3\r\n") != std::string::npos);
    CHECK(head.ends_with("\r\n\r\n"));
  }
  SECTION("a route's other methods") {
    const std::string reset = get("GET /stats/reset HTTP/1.1");
    CHECK(reset.starts_with("HTTP/1.1 405 "));
    CHECK(reset.find("Allow: POST, OPTIONS\r\n") != std::string::npos);
    CHECK(reset.ends_with("/stats/reset: found method GET, expected POST, OPTIONS\n"));
    CHECK(get("PUT /healthz HTTP/1.1").find("Allow: GET, HEAD, OPTIONS\r\n") != std::string::npos);
    for (const auto& [path, methods] :
         {std::pair("/stats/reset", "POST, OPTIONS"), std::pair("/healthz?x", "GET, HEAD, OPTIONS"),
          std::pair("/index.html", "GET, HEAD, OPTIONS")}) {
      const std::string options = get("OPTIONS " + std::string(path) + " HTTP/1.1");
      CHECK(options.starts_with("HTTP/1.1 200 OK\r\n"));
      CHECK(options.find("Allow: " + std::string(methods) + "\r\n") != std::string::npos);
      CHECK(options.find("Content-Length: 0\r\n") != std::string::npos);
    }
  }
  SECTION("what the server is") {
    const std::string about = get("GET / HTTP/1.1");
    CHECK(about.starts_with("HTTP/1.1 200 OK\r\n"));
    CHECK(about.find("\r\n\r\npi0-server: a robot policy for openpi's clients") != std::string::npos);
    CHECK(about.find("GET /healthz, GET /readyz") != std::string::npos);
    CHECK(get("GET http://robot HTTP/1.1").find("\r\n\r\npi0-server: ") != std::string::npos);
    CHECK(get("HEAD /?x HTTP/1.1").ends_with("\r\n\r\n"));
    CHECK(get("HEAD /index.html HTTP/1.1").starts_with("HTTP/1.1 426 "));
  }
  SECTION("what is neither a route nor an upgrade") {
    const std::string plain = get("GET /index.html HTTP/1.1");
    CHECK(plain.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
    CHECK(plain.ends_with(
        "/index.html: expected a WebSocket upgrade, as openpi's clients send, or one of GET /healthz, GET "
        "/readyz, GET /livez, GET /metrics, POST /stats/reset, GET /broken, GET /hold.\n"));
    CHECK(get("POST / HTTP/1.1").starts_with("HTTP/1.1 405 "));
    CHECK(get("POST / HTTP/1.1").find("Allow: GET, HEAD, OPTIONS\r\n") != std::string::npos);
    const std::string other_protocol = get("hello policy server");
    CHECK(other_protocol.starts_with("HTTP/1.1 400 "));
    CHECK(other_protocol.ends_with("\r\n\r\nNot an HTTP request: bad version.\n"));
    CHECK(get("GET / HTTP/1.1\r\nX: " + std::string(2 << 20, 'x')).starts_with("HTTP/1.1 431 "));
  }
  SECTION("upgrades with a wrong header") {
    const auto replaced = [&](const std::string& from, const std::string& to) {
      std::string request = test::upgrade_request();
      request.replace(request.find(from), from.size(), to);
      return http(server.port(), request).substr(0, 12);
    };
    CHECK(http(server.port(), "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n")
              .ends_with("Failed to open a WebSocket connection: missing Connection header.\n"));
    CHECK(replaced("Upgrade: websocket", "Upgrade: h2c") == "HTTP/1.1 426");
    CHECK(replaced("Connection: Upgrade", "Connection: close") == "HTTP/1.1 426");
    CHECK(replaced("Version: 13", "Version: 8") == "HTTP/1.1 400");
    CHECK(replaced("Key: dGhlIHNhbXBsZSBub25jZQ==", "Key: short") == "HTTP/1.1 400");
    CHECK(replaced("Host: localhost\r\n", "") == "HTTP/1.1 400");
  }
}

TEST_CASE("a request sent together with the handshake is answered", "[server][http]") {
  const RunningServer server;
  const auto bytes = protocol::encode(request_with_prompt("early"));
  test::TcpClient client(server.port());
  std::string headers = test::upgrade_request();
  headers.insert(headers.size() - 2, "X-Padding: " + std::string(3000, 'x') + "\r\n");
  client.send(headers + test::frame_bytes({reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  std::string received;
  while (received.find("early") == std::string::npos) {
    REQUIRE(client.receive(received, Clock::now() + test::patience));
  }
}

TEST_CASE("half a handshake is dropped after the timeout", "[server][http]") {
  const RunningServer server({.handshake_timeout = 200ms});
  CHECK(http(server.port(), test::upgrade_request().substr(0, 60)).empty());
}

TEST_CASE("connections beyond the limit are refused, health checks are not", "[server][http]") {
  const RunningServer server({.max_connections = 1});
  Client client(server);
  CHECK(http(server.port(), test::upgrade_request()).starts_with("HTTP/1.1 503 "));
  CHECK(http(server.port(), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").ends_with("OK\n"));
  CHECK(client.ask("the first one stays") == "the first one stays");
}
