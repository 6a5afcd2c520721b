// Runs instructions over columns, a strip at a time: its registers are in the nearest
// cache.
#pragma once
#include "angles.h"
#include "arcs.h"
#include "erf.h"
#include "hyperbolic.h"
#include "integers.h"
#include "plan.h"
#include "power.h"
#include "rounding.h"

namespace {

using jaxseq::MOST_REGISTERS;
using jaxseq::Run;

template <class T>
constexpr int64_t STRIP = 1024 / sizeof(T);

enum {
#define OP(name, value) op_##name,
#include "ops.h"
#undef OP
  OPERATIONS
};

// Rows of some elements: where the first begins, how far apart they are, and whether each
// has but one.
template <class T>
struct Operand {
  T* p;
  int64_t pitch;
  bool one;
};

// One instruction over rows of n elements, a multiple of a vector. A call of a function for
// each would take as long as the instruction itself.
template <class T>
__attribute__((always_inline)) inline void instruct(const int32_t* code, const Operand<T>* r, int64_t rows, int64_t n) {
  constexpr int W = Vector<T>::W;
  const Operand<T> to = r[code[1]], of[] = {r[code[2]], r[code[3]], r[code[4]]};
  T* d = to.p;
  const T *a = of[0].p, *b = of[1].p, *c = of[2].p;
  switch (code[0]) {
#define OP(name, value)                                                                              \
  case op_##name:                                                                                    \
    for (int64_t i = 0; i < rows; ++i, d += to.pitch, a += of[0].pitch, b += of[1].pitch, c += of[2].pitch) \
      for (int64_t j = 0; j < n; j += W) {                                                           \
        V<T> x = load(a + j), y = load(b + j), z = load(c + j);                                      \
        (void)x, (void)y, (void)z;                                                                   \
        store<T>(d + j, value);                                                                      \
      }                                                                                              \
    break;
#include "ops.h"
#undef OP
  }
}

template <class T>
int64_t scratch_of(const Run& run) {
  return (run.constants + run.once + run.temporaries) * STRIP<T>;
}
// Constants, and what is computed of them.
template <class T>
void fill(const Run& run, T* scratch) {
  for (int64_t i = 0; i < run.constants; ++i)
    for (int64_t j = 0; j < STRIP<T>; ++j) scratch[i * STRIP<T> + j] = T(run.value[i]);
  Operand<T> r[MOST_REGISTERS];
  for (int64_t i = 0; i < run.constants + run.once; ++i) r[run.places + i] = {scratch + i * STRIP<T>, 0};
  for (int64_t i = 0; i < run.once; ++i) instruct<T>(run.code + 5 * i, r, 1, STRIP<T>);
}

// A run over rows of n elements, a multiple of a vector.
template <class T>
void execute(const Run& run, const Operand<T>* io, int64_t rows, int64_t n, T* scratch) {
  Operand<T> r[MOST_REGISTERS];
  bool is_long = true;  // rows that lie together everywhere are one long row
  for (int64_t i = 0; i < run.places; ++i) is_long &= io[i].pitch == n && !io[i].one;
  if (is_long) n *= rows, rows = 1;
  const int64_t group = most(1, STRIP<T> / n);
  const int64_t known = run.constants + run.once;
  for (int64_t i = 0; i < known + run.temporaries; ++i)
    r[run.places + i] = {scratch + i * STRIP<T>, i < known ? 0 : n};
  const int32_t* end = run.code + 5 * run.instructions;
  for (int64_t row = 0; row < rows; row += group)
    for (int64_t s = 0; s < n; s += STRIP<T>) {
      const int64_t some = least(group, rows - row), length = least(STRIP<T>, n - s);
      for (int64_t i = 0; i < run.places; ++i) r[i] = {io[i].p + row * io[i].pitch + (io[i].one ? 0 : s), io[i].pitch};
      for (const int32_t* i = run.code + 5 * run.once; i < end; i += 5)
        instruct<T>(i, r, some, length);
    }
}

}  // namespace
