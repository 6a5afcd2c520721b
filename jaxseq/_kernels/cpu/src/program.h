// Runs instructions over columns, a strip at a time: its registers are in the nearest
// cache.
#pragma once
#include "math.h"
#include "plan.h"

namespace {

using jaxseq::Run;

template <class T>
constexpr int64_t STRIP = 1024 / sizeof(T);
constexpr int MOST_REGISTERS = 256;

enum {
#define OP(name, value) op_##name,
#include "ops.h"
#undef OP
  OPERATIONS
};

// One instruction over n elements, a multiple of a vector.
template <class T>
inline void instruct(int op, T* d, const T* a, const T* b, const T* c, int64_t n) {
  constexpr int W = Vector<T>::W;
  switch (op) {
#define OP(name, value)                                  \
  case op_##name:                                        \
    for (int64_t j = 0; j < n; j += W) {                 \
      V<T> x = load(a + j), y = load(b + j), z = load(c + j); \
      (void)x, (void)y, (void)z;                         \
      store<T>(d + j, value);                            \
    }                                                    \
    break;
#include "ops.h"
#undef OP
  }
}

// How a place lies in memory: `step` is how far apart its rows are, 0 for rows that are
// all the same, of which there are as many as a strip has.
template <class T>
struct Operand {
  T* p;
  bool same;
};

template <class T>
int64_t scratch_of(const Run& run) {
  return (run.constants + run.temporaries) * STRIP<T>;
}
template <class T>
void fill(const Run& run, T* scratch) {
  for (int64_t i = 0; i < run.constants; ++i)
    for (int64_t j = 0; j < STRIP<T>; ++j) scratch[i * STRIP<T> + j] = T(run.value[i]);
}

// Rows in a strip, of columns that take up `pad`.
template <class T>
int64_t rows_of_strip(int64_t pad) {
  return most(1, STRIP<T> / pad);
}

template <class T>
void execute(const Run& run, const Operand<T>* io, int64_t rows, int64_t pad, T* scratch) {
  T* r[MOST_REGISTERS];
  bool some = false;
  for (int64_t i = 0; i < run.places; ++i) some |= io[i].same;
  for (int64_t i = 0; i < run.constants + run.temporaries; ++i)
    r[run.places + i] = scratch + i * STRIP<T>;
  const int64_t group = some ? rows_of_strip<T>(pad) : rows;
  for (int64_t row = 0; row < rows; row += group) {
    const int64_t n = least(group, rows - row) * pad;
    for (int64_t s = 0; s < n; s += STRIP<T>) {
      const int64_t length = least(STRIP<T>, n - s);
      for (int64_t i = 0; i < run.places; ++i) r[i] = io[i].p + (io[i].same ? 0 : row * pad) + s;
      const int32_t* end = run.code + 5 * run.instructions;
      for (const int32_t* i = run.code; i < end; i += 5)
        instruct<T>(i[0], r[i[1]], r[i[2]], r[i[3]], r[i[4]], length);
    }
  }
}

}  // namespace
