// Products of many rows: tiles of sums in registers, panels of columns, and where the rows
// of a left side lie.
#pragma once
#include "product.h"

namespace {

using jaxseq::Gradients;
using jaxseq::Side;

// A tile of sums in registers, of which there are 32 where vectors have 64 bytes, else 16.
constexpr int HIGH = VECTOR_BYTES == 64 ? 8 : 4, WIDE = 3;

// HIGH rows times a panel of N vectors, added to c or put there. The next tile of c, which
// lies below it, is fetched.
template <class T, int N, bool PACKED, class How>
void tile_of_sums(int64_t K, const Side<T>& side, const T* b, T* c, int64_t pitch, bool adds) {
  constexpr int W = Vector<T>::W;
  V<T> sum[HIGH][N];
  const T* row[HIGH];
#pragma GCC unroll 8
  for (int m = 0; m < HIGH; ++m) {
    if (!PACKED) row[m] = side.row[m];
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) sum[m][v] = adds ? load(c + m * pitch + v * W) : V<T>{};
  }
  const T* a = side.packed;
  const char* ahead = side.ahead;
#pragma GCC unroll 2
  for (int64_t k = 0; k < K; ++k, b += N * W) {
    if (PACKED) {
      const int64_t line = k < 4 * HIGH ? k : 0;
      __builtin_prefetch(c + (HIGH + line / 4) * pitch + line % 4 * W, 1, 3);
      __builtin_prefetch(a + (k + 32) * HIGH, 0, 3);
    } else {
      __builtin_prefetch(ahead, 0, 2);
      ahead += side.apart;
    }
    V<T> w[N];
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) w[v] = *(const V<T>*)(b + v * W);
#pragma GCC unroll 8
    for (int m = 0; m < HIGH; ++m) {
      const auto s = How::each(PACKED ? a + k * HIGH + m : row[m] + k);
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) sum[m][v] = How::plus(sum[m][v], s, w[v]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < HIGH; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) store<T>(c + m * pitch + v * W, sum[m][v]);
}

template <class T, bool PACKED, class How>
void tile_of_width(int64_t n, int64_t K, const Side<T>& side, const T* b, T* c, int64_t pitch, bool adds) {
  if (n == 3) tile_of_sums<T, 3, PACKED, How>(K, side, b, c, pitch, adds);
  else if (n == 2) tile_of_sums<T, 2, PACKED, How>(K, side, b, c, pitch, adds);
  else tile_of_sums<T, 1, PACKED, How>(K, side, b, c, pitch, adds);
}

// Columns in panels of at most WIDE vectors.
template <class T>
struct Panels {
  static constexpr int W = Vector<T>::W;
  int64_t columns;
  int64_t vectors() const { return over(columns, W); }
  int64_t number() const { return over(vectors(), WIDE); }
  int64_t first(int64_t p) const { return p * vectors() / number(); }  // vector of a panel
  int64_t size(int64_t p) const { return first(p + 1) - first(p); }
  // elements of a panel that there are
  int64_t filled(int64_t p) const { return least(size(p) * W, columns - first(p) * W); }
  // where a panel of K rows lies; they do not begin at the same place of a page
  int64_t at(int64_t p, int64_t K) const { return (first(p) * K + 4 * p) * W; }
  int64_t room(int64_t K) const { return at(number(), K); }
};

// The tile of HIGH rows of c, of which only some rows and columns may be there. If so, or
// if its rows are not evenly apart, it goes by a place of its own. With `pairs` K counts
// pairs of bfloat16.
template <class T, bool PACKED>
void sums(int64_t K, const Side<T>& side, int64_t n, const T* b, T* const* c, int64_t rows, int64_t columns,
          bool adds, jaxseq::PairSums pairs) {
  constexpr int W = Vector<T>::W;
  auto run = [&](T* to, int64_t apart) {
    if constexpr (sizeof(T) == 4)
      if (pairs) return pairs(n, K, side, b, to, apart, adds);
    tile_of_width<T, PACKED, Panel>(n, K, side, b, to, apart, adds);
  };
  bool even = rows == HIGH && columns == n * W;
  for (int64_t m = 2; m < HIGH && even; ++m) even = c[m] - c[m - 1] == c[1] - c[0];
  if (even) return run(c[0], c[1] - c[0]);
  alignas(64) T own[HIGH * WIDE * W] = {};
  for (int64_t m = 0; adds && m < rows; ++m) memcpy(own + m * n * W, c[m], columns * sizeof(T));
  run(own, n * W);
  for (int64_t m = 0; m < rows; ++m) memcpy(c[m], own + m * n * W, columns * sizeof(T));
}

// Where row i of all T times B, by time, lies.
inline Ref row_of(const Gradients& call, const jaxseq::Rows& a, int64_t i) {
  int64_t t = i / call.B;
  const int64_t b = i % call.B;
  if (a.first && t == (call.reverse ? call.T - 1 : 0)) return a.first.at(b * a.width);
  if (a.first) t += call.reverse ? 1 : -1;
  return a.data.at((a.batch_first ? b * call.T + t : t * call.B + b) * a.width);
}

}  // namespace
