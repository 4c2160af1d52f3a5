#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "model/backends/cpu/gemm_coded_pairs.h"
#include "model/backends/cpu/gemm_table.h"

namespace pi0::model {
namespace {

constexpr std::int64_t tile_rows = 16;   // of sums and x; also the steps that one tile of lanes holds
constexpr std::int64_t tile_bytes = 64;  // of a row
constexpr std::int64_t block_rows = 2 * tile_rows;

// What LDTILECFG reads. Tiles 0 to 3 are sums (upper rows left and right, lower rows left and right),
// 4 and 5 the upper and lower rows of x, 6 and 7 the left and right lanes.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t bytes[16] = {};
  std::uint8_t rows[16] = {};

  TileShapes(std::int64_t upper, std::int64_t lower, std::int64_t steps) {
    const auto set = [this](int tile, std::int64_t height, std::int64_t width) {
      rows[tile] = static_cast<std::uint8_t>(height);
      bytes[tile] = static_cast<std::uint16_t>(height == 0 ? 0 : width);
    };
    for (int tile : {0, 1}) set(tile, upper, tile_bytes);
    for (int tile : {2, 3}) set(tile, lower, tile_bytes);
    set(4, upper, steps * 4);
    set(5, lower, steps * 4);
    for (int tile : {6, 7}) set(tile, steps, tile_bytes);
  }
};

void configure(const TileShapes& shapes) {
  asm volatile("" ::"m"(shapes));  // to GCC the intrinsic reads the first 8 bytes only
  _tile_loadconfig(&shapes);
}

void prefetch(const std::uint8_t* memory, std::int64_t bytes) {
  constexpr int for_reading = 0, into_second_level = 2;
  for (std::int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(memory + at, for_reading, into_second_level);
}

// One block of rows over `tiles` tiles of `tile_steps` steps; `go_on` adds to the sums that are there.
template <bool has_lower>
[[gnu::always_inline]] inline void multiply_block(const std::uint32_t* x, std::int64_t stride, std::int64_t tiles,
                                                  std::int64_t tile_steps, const std::uint32_t* lanes, float* sums,
                                                  bool go_on, const Ahead& ahead) {
  constexpr std::int64_t sums_stride = panel_width * 4, lanes_stride = panel_width * 4;
  float* const lower = sums + tile_rows * panel_width;
  if (go_on) {
    _tile_loadd(0, sums, sums_stride);
    _tile_loadd(1, sums + tile_rows, sums_stride);
    if constexpr (has_lower) {
      _tile_loadd(2, lower, sums_stride);
      _tile_loadd(3, lower + tile_rows, sums_stride);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (has_lower) {
      _tile_zero(2);
      _tile_zero(3);
    }
  }
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    const std::int64_t step = tile * tile_steps;
    if (ahead.from != nullptr) prefetch(ahead.from + step * ahead.step_bytes, tile_steps * ahead.step_bytes);
    _tile_loadd(6, lanes + step * panel_width, lanes_stride);
    _tile_loadd(4, x + step, stride * 4);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, lanes + step * panel_width + tile_rows, lanes_stride);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (has_lower) {
      _tile_loadd(5, x + tile_rows * stride + step, stride * 4);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, sums_stride);
  _tile_stored(1, sums + tile_rows, sums_stride);
  if constexpr (has_lower) {
    _tile_stored(2, lower, sums_stride);
    _tile_stored(3, lower + tile_rows, sums_stride);
  }
}

// All panels of a run, `tile_steps` steps to a tile.
void multiply_tiles(const Run& run, std::int64_t tiles, std::int64_t tile_steps) {
  const std::int64_t blocks = (run.rows + block_rows - 1) / block_rows;
  Ahead ahead{run.ahead.from, (run.ahead.step_bytes + blocks - 1) / blocks};  // a block's share
  const auto multiply_blocks = [&](auto multiply_block, std::int64_t first, std::int64_t last) {
    for (std::int64_t panel = 0; panel < run.panels; ++panel) {
      float* const sums = run.sums + panel * run.sums_stride;
      for (std::int64_t row = first; row < last; row += block_rows) {
        multiply_block(run.x + row * run.stride, run.stride, tiles, tile_steps, run.lanes[panel],
                       sums + row * panel_width, run.go_on, ahead);
        if (ahead.from != nullptr) ahead.from += tiles * tile_steps * ahead.step_bytes;
      }
    }
  };
  const std::int64_t whole = run.rows / block_rows * block_rows;
  if (whole > 0) {
    configure(TileShapes(tile_rows, tile_rows, tile_steps));
    multiply_blocks(multiply_block<true>, 0, whole);
  }
  if (whole == run.rows) return;
  const std::int64_t upper = std::min(run.rows - whole, tile_rows), lower = run.rows - whole - upper;
  configure(TileShapes(upper, lower, tile_steps));
  multiply_blocks(lower > 0 ? multiply_block<true> : multiply_block<false>, whole, run.rows);
}

void multiply(Lane lane, const Run& run) {
  if (lane == Lane::float32) return multiply_run<Floats>(run);
  const std::int64_t tiles = run.steps / tile_rows, rest = run.steps % tile_rows;
  if (tiles > 0) multiply_tiles(run, tiles, tile_rows);
  if (rest > 0) {
    std::array<const std::uint32_t*, most_panels> lanes;
    for (std::int64_t panel = 0; panel < run.panels; ++panel) {
      lanes[static_cast<std::size_t>(panel)] = run.lanes[panel] + (run.steps - rest) * panel_width;
    }
    Run last = run;
    last.x += run.steps - rest;
    last.lanes = lanes.data();
    last.go_on = run.go_on || tiles > 0;
    last.ahead = {};
    multiply_tiles(last, 1, rest);
  }
  _tile_release();
}

}  // namespace

bool may_use_amx() {
  // __builtin_cpu_supports does not know AMX in every compiler.
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned int tiles_and_bf16 = (1U << 24) | (1U << 22);
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || (edx & tiles_and_bf16) != tiles_and_bf16) return false;
  constexpr int ask_for_state = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, ask_for_state, tile_data) == 0;
}

const GemmKernels& amx_bf16_gemm() {
  static const GemmKernels kernels =
      kernel_table(InstructionSet::amx_bf16, widen_with_permutes, widen_elements_with_permutes, multiply,
                   multiply_in_order<Floats>, /*has_pairs=*/true);
  return kernels;
}

}  // namespace pi0::model
