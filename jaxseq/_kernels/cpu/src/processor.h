// Which kernels this processor can run. It is asked itself: what compilers have for it,
// __builtin_cpu_supports, is not in the library of Zig's, and says no to everything there.
#pragma once
#include <cstdint>

#ifdef __x86_64__
#include <cpuid.h>
#endif

namespace jaxseq {

// 3 if it has what -march=x86-64-v4 uses and AVX512-BF16, 2 without the latter, 1 for
// -march=x86-64-v3, else 0.
inline int64_t processor() {
#ifdef __x86_64__
  const auto all = [](uint32_t have, uint32_t need) { return (have & need) == need; };
  uint32_t a, b, c, d;
  // FMA, MOVBE, OSXSAVE, AVX, F16C
  if (!__get_cpuid(1, &a, &b, &c, &d) || !all(c, 1u << 12 | 1u << 22 | 7u << 27)) return 0;
  uint32_t low, high;  // of the registers that the system keeps
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if (!all(low, 0x06)) return 0;
  // LZCNT; BMI1, AVX2, BMI2
  if (!__get_cpuid(0x80000001u, &a, &b, &c, &d) || !all(c, 1u << 5)) return 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !all(b, 1u << 3 | 1u << 5 | 1u << 8)) return 0;
  // AVX512 F, DQ, CD, BW, VL
  if (!all(low, 0xe6) || !all(b, 3u << 16 | 1u << 28 | 3u << 30)) return 1;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && all(a, 1u << 5) ? 3 : 2;
#else
  return 0;
#endif
}

}  // namespace jaxseq
