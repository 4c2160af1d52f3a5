// Carries out AMX instructions where the CPU has AVX-512 but no AMX, so that the kernels of amx_bf16 are tested there
// too: the linker puts this instruction_sets() in the place of the model's (--wrap), and each AMX instruction raises
// SIGILL, whose handler does what the "Intel 64 and IA-32 Architectures Software Developer's Manual" says of it. Shapes
// that a CPU with AMX would refuse abort the program. Knows the instructions that the kernels have, no others.
#include <immintrin.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "model/backends/cpu/gemm_kernels.h"

namespace pi0::test {
namespace {

constexpr int tile_count = 8, most_rows = 16, most_bytes = 64;

// What LDTILECFG reads.
struct Configuration {
  std::uint8_t palette;
  std::uint8_t start_row;
  std::uint8_t reserved[14];
  std::uint16_t bytes[16];
  std::uint8_t rows[16];
};
static_assert(sizeof(Configuration) == 64);

struct Tile {
  int rows, bytes;
  alignas(64) std::uint8_t data[most_rows][most_bytes];  // zeros beyond the rows and bytes
};

// A thread's; all zeros before it is configured.
thread_local std::array<Tile, tile_count> tiles;

[[noreturn]] void refuse(const std::string& what) {
  std::fprintf(stderr, "AMX emulation: a CPU would refuse %s\n", what.c_str());
  std::abort();
}

std::string shape_of(int tile) {
  const Tile& of = tiles[static_cast<std::size_t>(tile)];
  return "tile " + std::to_string(tile) + " of " + std::to_string(of.rows) + " rows of " + std::to_string(of.bytes) +
         " bytes";
}

Tile& configured_tile(const char* instruction, int tile) {
  if (tiles[static_cast<std::size_t>(tile)].rows == 0) refuse(instruction + (" with " + shape_of(tile)));
  return tiles[static_cast<std::size_t>(tile)];
}

void release() { tiles = {}; }

void configure(const std::uint8_t* memory) {
  Configuration to;
  std::memcpy(&to, memory, sizeof(to));
  const auto is_zero = [](int value) { return value == 0; };
  if (to.palette != 1 || to.start_row != 0 || !std::all_of(to.reserved, to.reserved + 14, is_zero) ||
      !std::all_of(to.bytes + tile_count, to.bytes + 16, is_zero) ||
      !std::all_of(to.rows + tile_count, to.rows + 16, is_zero)) {
    refuse("ldtilecfg of palette " + std::to_string(to.palette) + ", or with other bytes that are not 0");
  }
  release();
  for (int i = 0; i < tile_count; ++i) {
    Tile& tile = tiles[static_cast<std::size_t>(i)];
    tile.rows = to.rows[i];
    tile.bytes = to.bytes[i];
    if (tile.rows > most_rows || tile.bytes > most_bytes || (tile.rows == 0) != (tile.bytes == 0)) {
      refuse("ldtilecfg of " + shape_of(i));
    }
  }
}

void zero(int tile) { std::memset(configured_tile("tilezero", tile).data, 0, sizeof(Tile::data)); }

void load(int tile, const std::uint8_t* from, std::int64_t stride) {
  Tile& to = configured_tile("tileloadd", tile);
  for (int row = 0; row < to.rows; ++row) {
    std::memcpy(to.data[row], from + row * stride, static_cast<std::size_t>(to.bytes));
  }
}

void store(int tile, std::uint8_t* to, std::int64_t stride) {
  const Tile& from = configured_tile("tilestored", tile);
  for (int row = 0; row < from.rows; ++row) {
    std::memcpy(to + row * stride, from.data[row], static_cast<std::size_t>(from.bytes));
  }
}

[[gnu::target("avx512f")]] __m512 even_of(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
[[gnu::target("avx512f")]] __m512 odd_of(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-65536)));
}

// Even and odd members of pairs are summed by themselves, and these sums are added to what is there.
[[gnu::target("avx512f")]] void add_products(Tile& sums, const Tile& x, const Tile& lanes) {
  const auto columns = static_cast<__mmask16>((1U << (sums.bytes / 4)) - 1);
  for (int row = 0; row < sums.rows; ++row) {
    __m512 even = _mm512_setzero_ps(), odd = even;
    for (int step = 0; step < lanes.rows; ++step) {
      std::int32_t pair;
      std::memcpy(&pair, x.data[row] + 4 * step, sizeof(pair));
      const __m512i left = _mm512_set1_epi32(pair), right = _mm512_load_si512(lanes.data[step]);
      even = _mm512_fmadd_ps(even_of(left), even_of(right), even);
      odd = _mm512_fmadd_ps(odd_of(left), odd_of(right), odd);
    }
    const __m512 sum = _mm512_add_ps(_mm512_load_ps(sums.data[row]), _mm512_add_ps(even, odd));
    _mm512_mask_store_ps(sums.data[row], columns, sum);
  }
}

void multiply(int sums, int x, int lanes) {
  Tile& to = configured_tile("tdpbf16ps", sums);
  const Tile& left = configured_tile("tdpbf16ps", x);
  const Tile& right = configured_tile("tdpbf16ps", lanes);
  if (sums == x || sums == lanes || x == lanes || to.rows != left.rows || to.bytes != right.bytes ||
      left.bytes != 4 * right.rows || to.bytes % 4 != 0) {
    refuse("tdpbf16ps with " + shape_of(sums) + ", " + shape_of(x) + ", " + shape_of(lanes));
  }
  // Subnormal operands and results are zero, no exceptions, to the nearest. The end of the handler undoes it.
  _mm_setcsr(_MM_FLUSH_ZERO_ON | _MM_DENORMALS_ZERO_ON | _MM_MASK_MASK | _MM_ROUND_NEAREST);
  add_products(to, left, right);
}

// Registers hold addresses, and displacements are signed bytes.
// NOLINTBEGIN(performance-no-int-to-ptr, bugprone-signed-char-misuse)
constexpr std::uint8_t vex = 0xC4, trap = 0xCC;  // the first byte of each instruction, and INT3 in its place

// The instruction at RIP, and the registers.
class Instruction {
 public:
  explicit Instruction(greg_t* registers)
      : registers_(registers), code_(reinterpret_cast<const std::uint8_t*>(registers[REG_RIP])) {}

  // False: it is none of ours, and nothing was done.
  bool carry_out() {
    constexpr std::uint8_t rex_w = 0x48, lea = 0x8D, map_0f38 = 2, is_w_or_long = 0x84;
    if ((code_[0] == vex || code_[0] == trap) && (code_[1] & 0x1F) == map_0f38 && (code_[2] & is_w_or_long) == 0) {
      modrm_ = code_ + 4;
      extensions_ = ~code_[1] >> 5;
      if (!carry_out_on_tiles()) return false;
    } else if ((code_[0] & 0xF8) == rex_w && code_[1] == lea) {  // between ours, whose signals it saves
      modrm_ = code_ + 2;
      extensions_ = code_[0];
      value_of(reg() | (extensions_ << 1 & 8)) = base() + offset();
    } else {
      return false;
    }
    registers_[REG_RIP] += length();
    return true;
  }

 private:
  bool carry_out_on_tiles() const {
    enum Prefix { none, x66, xF3, xF2 };
    const int prefix = code_[2] & 3, opcode = code_[3];
    const auto memory = [this] { return reinterpret_cast<std::uint8_t*>(base()); };
    if (opcode == 0x49 && prefix == none && in_memory() && reg() == 0) {
      configure(memory() + offset());
    } else if (opcode == 0x49 && prefix == none && *modrm_ == 0xC0) {
      release();
    } else if (opcode == 0x49 && prefix == xF2 && !in_memory() && rm() == 0) {
      zero(reg());
    } else if (opcode == 0x4B && prefix == xF2 && has_sib()) {
      load(reg(), memory(), offset());
    } else if (opcode == 0x4B && prefix == xF3 && has_sib()) {
      store(reg(), memory(), offset());
    } else if (opcode == 0x5C && prefix == xF3 && !in_memory()) {
      multiply(reg(), rm(), ~code_[2] >> 3 & 7);
    } else {
      return false;
    }
    return true;
  }

  int reg() const { return *modrm_ >> 3 & 7; }
  int rm() const { return *modrm_ & 7; }
  bool in_memory() const { return *modrm_ >> 6 != 3; }
  bool has_sib() const { return in_memory() && rm() == 4; }
  int base_number() const { return (has_sib() ? modrm_[1] : *modrm_) & 7; }
  bool has_no_base() const { return *modrm_ >> 6 == 0 && base_number() == 5; }
  int displacement_bytes() const { return *modrm_ >> 6 == 1 ? 1 : *modrm_ >> 6 == 2 || has_no_base() ? 4 : 0; }
  const std::uint8_t* displacement() const { return modrm_ + 1 + static_cast<int>(has_sib()); }
  std::int64_t length() const { return displacement() + (in_memory() ? displacement_bytes() : 0) - code_; }

  greg_t& value_of(int number) const {
    constexpr std::array<int, 16> places = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return registers_[places[static_cast<std::size_t>(number)]];
  }

  // Of the memory operand, with the displacement.
  std::int64_t base() const {
    std::int32_t more = 0;
    if (displacement_bytes() == 1) more = static_cast<std::int8_t>(*displacement());
    if (displacement_bytes() == 4) std::memcpy(&more, displacement(), sizeof(more));
    if (has_no_base()) return more + (has_sib() ? 0 : registers_[REG_RIP] + length());
    return more + value_of(base_number() | (extensions_ << 3 & 8));
  }

  // Of the memory operand, index times scale: of tiles the stride of rows.
  std::int64_t offset() const {
    constexpr int no_index = 4;
    if (!has_sib()) return 0;
    const int index = (modrm_[1] >> 3 & 7) | (extensions_ << 2 & 8);
    return index == no_index ? 0 : value_of(index) << (modrm_[1] >> 6);
  }

  greg_t* registers_;
  const std::uint8_t* code_;
  const std::uint8_t* modrm_ = nullptr;
  int extensions_ = 0;  // bits 2 to 0: R, X and B
};

struct sigaction earlier[NSIG];

// A virtual machine is several times as fast to report a trap as an illegal instruction.
void make_trap(greg_t place) {
  constexpr greg_t page = 4096;
  if (mprotect(reinterpret_cast<void*>(place / page * page), page, PROT_READ | PROT_WRITE | PROT_EXEC) != 0) return;
  *reinterpret_cast<std::uint8_t*>(place) = trap;
}

// NOLINTEND(performance-no-int-to-ptr, bugprone-signed-char-misuse)

void carry_out(int signal, siginfo_t*, void* context) {
  greg_t* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  if (signal == SIGTRAP) --registers[REG_RIP];
  const greg_t place = registers[REG_RIP];
  if (!Instruction(registers).carry_out()) {
    sigaction(signal, &earlier[signal], nullptr);  // which the same instruction meets next
    return;
  }
  while (Instruction(registers).carry_out()) continue;
  if (signal == SIGILL) make_trap(place);
}

// Catch2 sets its own handlers for each test case, so this is done anew whenever a test asks for instruction sets.
void emulate_amx() {
  for (const int signal : {SIGILL, SIGTRAP}) {
    struct sigaction own = {}, found;
    own.sa_sigaction = carry_out;
    own.sa_flags = SA_SIGINFO;
    sigaction(signal, &own, &found);
    if (found.sa_sigaction != carry_out) earlier[signal] = found;
  }
}

}  // namespace

std::vector<model::InstructionSet> model_sets() asm("__real__ZN3pi05model16instruction_setsEv");
std::vector<model::InstructionSet> sets_of_tests() asm("__wrap__ZN3pi05model16instruction_setsEv");

std::vector<model::InstructionSet> sets_of_tests() {
  std::vector<model::InstructionSet> sets = model_sets();
  const bool runs_the_rest = sets.back() >= model::InstructionSet::avx512 && __builtin_cpu_supports("avx512vbmi");
  if (sets.back() != model::InstructionSet::amx_bf16 && runs_the_rest) {
    emulate_amx();
    sets.push_back(model::InstructionSet::amx_bf16);
  }
  return sets;
}

}  // namespace pi0::test
