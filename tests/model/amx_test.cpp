// AMX's own instructions, or their emulation (support/amx_emulation.cpp).
#ifdef __x86_64__
#include <immintrin.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <csignal>
#include <vector>

#include "model/backends/cpu/gemm.h"
#include "support/catch.h"

namespace pi0 {
namespace {

bool can_run_amx() {
  const std::vector<model::InstructionSet> sets = model::instruction_sets();
  return std::find(sets.begin(), sets.end(), model::InstructionSet::amx_bf16) != sets.end();
}

// Of sums (tile 0), x (tile 1) and lanes (tile 2).
struct alignas(64) Shapes {
  Shapes(int rows, int steps, int columns) {
    const auto set = [this](int tile, int height, int width) {
      bytes[16 + 2 * tile] = static_cast<std::uint8_t>(4 * width);
      bytes[48 + tile] = static_cast<std::uint8_t>(height);
    };
    bytes[0] = 1;  // palette
    set(0, rows, columns);
    set(1, rows, steps);
    set(2, steps, columns);
  }
  std::uint8_t bytes[64] = {};
};

[[gnu::target("amx-tile")]] void configure(const Shapes& shapes) {
  asm volatile("" ::"m"(shapes));  // to GCC the intrinsic reads the first 8 bytes only
  _tile_loadconfig(&shapes);
}

[[gnu::target("amx-tile")]] void zero_without_configuration() { _tile_zero(0); }

std::uint32_t pair_of(float even, float odd) {
  return std::bit_cast<std::uint32_t>(even) >> 16 | (std::bit_cast<std::uint32_t>(odd) & 0xFFFF0000U);
}

// Adds x [rows][4] times lanes [steps][4] to sums [rows][4]. Not inlined, or GCC might load before callers have stored.
[[gnu::target("amx-tile,amx-bf16"), gnu::noinline]] void add_product(const Shapes& shapes,
                                                                     const std::vector<std::uint32_t>& x,
                                                                     const std::vector<std::uint32_t>& lanes,
                                                                     std::vector<float>& sums) {
  configure(shapes);
  constexpr long stride = 16;
  _tile_loadd(0, sums.data(), stride);
  _tile_loadd(1, x.data(), stride);
  _tile_loadd(2, lanes.data(), stride);
  _tile_dpbf16ps(0, 1, 2);
  _tile_stored(0, sums.data(), stride);
  _tile_release();
}

// Of one element: a row of x with a column of lanes.
float sum_of(std::vector<std::uint32_t> x, const std::vector<std::uint32_t>& column) {
  const auto steps = static_cast<int>(x.size());
  x.resize(4);
  std::vector<std::uint32_t> lanes(16);
  for (std::size_t i = 0; i < column.size(); ++i) lanes[4 * i] = column[i];
  std::vector<float> sums(4);
  add_product(Shapes(1, steps, 1), x, lanes, sums);
  return sums[0];
}

// The signal that ends a process which does `what`.
template <class What>
int signal_of(const What& what) {
  const pid_t child = fork();
  if (child == 0) {
    for (const int signal : {SIGILL, SIGSEGV, SIGABRT}) std::signal(signal, SIG_DFL);  // not Catch2's reports
    close(STDERR_FILENO);
    if (can_run_amx()) what();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST_CASE("a tile product adds to the rows and columns of its shapes only", "[model][gemm]") {
  if (!can_run_amx()) return;
  const std::vector<std::uint32_t> x = {pair_of(1, 2), pair_of(3, 4),  pair_of(9, 9), 0,
                                        pair_of(5, 6), pair_of(-7, 8), pair_of(9, 9), 0};
  const std::vector<std::uint32_t> lanes = {pair_of(1, 10),   pair_of(2, 20), pair_of(-3, 30), pair_of(9, 9),
                                            pair_of(100, -1), pair_of(0, 1),  pair_of(1, 0),   pair_of(9, 9)};
  std::vector<float> sums = {0.5F, 0, 0, 7, 0, 0, 0, 7, 7, 7, 7, 7};
  add_product(Shapes(2, 2, 3), x, lanes, sums);
  CHECK(sums == std::vector<float>{317.5F, 46, 60, 7, -643, 138, 158, 7, 7, 7, 7, 7});
}

TEST_CASE("a tile product sums the members of pairs apart and takes subnormals for zero", "[model][gemm]") {
  if (!can_run_amx()) return;
  const std::uint32_t ones = pair_of(1, 1);
  CHECK(sum_of({pair_of(0x1p24F, -0x1p24F), pair_of(1, 0)}, {ones, ones}) == 0);
  CHECK(sum_of({pair_of(0x1p-63F, 0)}, {pair_of(0x1p-63F, 0)}) == 0x1p-126F);
  CHECK(sum_of({pair_of(0x1p-64F, 0)}, {pair_of(0x1p-63F, 0)}) == 0);   // the product
  CHECK(sum_of({pair_of(0x1p-127F, 0)}, {pair_of(0x1p100F, 0)}) == 0);  // an operand
  CHECK(sum_of({pair_of(0x1.8p-126F, -0x1p-126F)}, {ones}) == 0);       // the sum of both members
  CHECK(sum_of({pair_of(0x1p127F, 0)}, {pair_of(2, 0)}) == INFINITY);
}

TEST_CASE("tiles whose shapes do not fit end the program", "[model][gemm]") {
  if (!can_run_amx()) return;
  std::vector<float> sums(64);
  const std::vector<std::uint32_t> values(64);
  const auto multiply = [&](const Shapes& shapes) { add_product(shapes, values, values, sums); };
  const auto with = [](std::size_t byte, int value) {
    Shapes shapes(2, 2, 3);
    shapes.bytes[byte] = static_cast<std::uint8_t>(value);
    return shapes;
  };
  CHECK(signal_of([&] { multiply(Shapes(2, 2, 3)); }) == 0);
  CHECK(signal_of([&] { multiply(with(0, 2)); }) != 0);    // no such palette
  CHECK(signal_of([&] { multiply(with(49, 17)); }) != 0);  // rows
  CHECK(signal_of([&] { multiply(with(18, 68)); }) != 0);  // bytes of a row
  CHECK(signal_of([&] { multiply(with(50, 3)); }) != 0);   // more rows of lanes than steps of x
  CHECK(signal_of([&] { multiply(with(48, 1)); }) != 0);   // fewer rows of sums than of x
  CHECK(signal_of([&] { multiply(with(20, 8)); }) != 0);   // fewer columns of lanes than of sums
  CHECK(signal_of([&] { multiply(with(20, 0)); }) != 0);   // rows without bytes
  CHECK(signal_of(zero_without_configuration) != 0);
  CHECK(signal_of([] { __builtin_trap(); }) == SIGILL);
}

}  // namespace
}  // namespace pi0
#endif
