// Products of a few rows with a matrix that has been packed.
#pragma once
#include "plan.h"
#include "vector.h"

namespace {

// Where a vector of results lies, beside the address of its array: at `at`, and `pad`
// further for each row. `column` and `unit` say which columns of the matrix it has.
struct Slot {
  int64_t at, pad, first, count;  // columns of the matrix
};

// A matrix in panels of some vectors each, [panel][K][vectors]. The vectors come in
// pieces, for threads, and a panel is in one of them. Or it is bare: not packed, with its
// rows as they lie.
template <class T>
struct Packed {
  static constexpr int W = Vector<T>::W;
  int64_t K, vectors, panels;
  const Slot* slot;  // of each vector
  int64_t* first;    // the first vector of each panel
  int64_t* begin;    // the first panel of each piece
  const jaxseq::Matrix* bare;
  T* data;

  static int64_t room(int64_t vectors, int64_t pieces) { return vectors + pieces + 2; }
  T* panel(int64_t p) const { return data + first[p] * K * W; }
  int64_t size() const { return bare ? 0 : K * vectors * W; }

  // `ends` says where the vectors of each piece end; `memory` is the room for the panels
  void plan(int64_t rows, const Slot* slots, const int64_t* ends, int64_t pieces, int64_t wide, int64_t* memory) {
    K = rows, slot = slots, vectors = ends[pieces - 1], panels = 0;
    begin = memory, first = memory + pieces + 1;
    for (int64_t i = 0, v = 0; i < pieces; ++i) {
      begin[i] = panels;
      const int64_t n = ends[i] - v, some = over(n, wide);
      for (int64_t p = 0; p < some; ++p) first[panels++] = v + p * n / some;
      v = ends[i];
    }
    begin[pieces] = panels, first[panels] = vectors;
  }
  void pack(const jaxseq::Matrix& w, int64_t p) const {
    pack(slot + first[p], w, first[p + 1] - first[p], 0, K, panel(p));
  }
  static void pack(const Slot* slot, const jaxseq::Matrix& w, int64_t n, int64_t k0, int64_t k1, T* to) {
    for (int64_t k = k0; k < k1; ++k) {
      const T* row = (const T*)w.data + k * w.columns;
      for (int64_t v = 0; v < n; ++v, to += W) {
        const Slot& s = slot[v];
        if (s.count == W)
          store<T>(to, load(row + s.first));
        else
          for (int j = 0; j < W; ++j) to[j] = j < s.count ? row[s.first + j] : T(0);
      }
    }
  }
};

enum Begin { ZERO, ADD, BIAS };

// A row of the left side, and where its results go.
template <class T>
struct Row {
  const T* a;
  T* c;
  int64_t row;
};

constexpr int64_t FAR = 8;  // rows of a bare matrix that are fetched ahead

template <class T>
using Tile = void (*)(int64_t, int64_t, const Row<T>*, const T*, const Slot*, Begin, const T*, const void*);

// MR rows times NV vectors of a panel, some of the next of which is fetched, or of a bare
// matrix, whose rows are `next` apart.
template <class T, int MR, int NV, bool BARE>
void tile(int64_t K, int64_t k0, const Row<T>* rows, const T* b, const Slot* slot, Begin begin,
          const T* bias, const void* next) {
  constexpr int W = Vector<T>::W;
  V<T> sum[MR][NV];
  const T* a[MR];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m) {
    a[m] = rows[m].a + k0;
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      const T* from = begin == BIAS ? bias + v * W : rows[m].c + slot[v].at + rows[m].row * slot[v].pad;
      sum[m][v] = begin == ZERO ? V<T>{} : load(from);
    }
  }
  if constexpr (BARE) {
    const int64_t pitch = (int64_t)next;
    const T* w[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) w[v] = b + slot[v].first;
    for (int64_t k = 0, at = 0; k < K; ++k, at += pitch)
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        const V<T> x = load(w[v] + at);
        if (MR <= 2) __builtin_prefetch(w[v] + at + FAR * pitch);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) sum[m][v] += a[m][k] * x;
      }
  } else {
    const char* fetched = (const char*)next;
#pragma GCC unroll 2
    for (int64_t k = 0; k < K; ++k, b += NV * W) {
      V<T> w[NV];
      if (MR > 1) __builtin_prefetch(fetched + 64 * k, 0, 2);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) w[v] = *(const V<T>*)(b + v * W);
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m) {
        const T s = a[m][k];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) sum[m][v] += s * w[v];
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v)
      store<T>(rows[m].c + slot[v].at + rows[m].row * slot[v].pad, sum[m][v]);
}

// sums of a tile that are held in registers: of 32 where vectors have 64 bytes, else of 16
constexpr int SUMS = VECTOR_BYTES == 64 ? 24 : 12;
constexpr int MOST_ROWS = 8, MOST_VECTORS = 8;
constexpr int BARE_ROWS = 4;  // of a tile of a matrix that is not packed

template <class T, int MR, int NV, bool BARE>
constexpr Tile<T> tile_of() {
  if constexpr (MR * NV <= SUMS && MR <= (BARE ? BARE_ROWS : MOST_ROWS))
    return tile<T, MR, NV, BARE>;
  else
    return nullptr;
}
#define ROW(MR)                                                                          \
  {tile_of<T, MR, 1, BARE>(), tile_of<T, MR, 2, BARE>(), tile_of<T, MR, 3, BARE>(),        \
   tile_of<T, MR, 4, BARE>(), tile_of<T, MR, 5, BARE>(), tile_of<T, MR, 6, BARE>(),        \
   tile_of<T, MR, 7, BARE>(), tile_of<T, MR, 8, BARE>()}
template <class T, bool BARE>
constexpr Tile<T> TILES[MOST_ROWS][MOST_VECTORS] = {ROW(1), ROW(2), ROW(3), ROW(4),
                                                    ROW(5), ROW(6), ROW(7), ROW(8)};
#undef ROW

// How many vectors a panel has for products of M rows.
inline int64_t width_for(int64_t M) {
  if (M <= 1) return 8;
  if (M <= 3) return SUMS / M < 8 ? SUMS / M : 8;
  return M == 4 && SUMS == 24 ? 6 : M <= 6 && SUMS == 24 ? 4 : 3;
}

#ifndef BLOCK
#define BLOCK 256  // rows of a panel that are used for all rows before the next ones
#endif

// Rows times the vectors v0 to v0 + n of the rows of a matrix from k0 on.
template <class T, bool BARE>
void strip(int64_t n, int64_t K, int64_t k, int64_t M, const Row<T>* rows, const T* b, const Slot* slot,
           Begin begin, const T* bias, int64_t pitch) {
  const int64_t high = least(BARE ? BARE_ROWS : MOST_ROWS, SUMS / n), tiles = over(M, high);
  const T* next = b + K * n * Vector<T>::W;
  for (int64_t i = 0, m = 0; i < tiles; ++i) {
    const int64_t mr = over(M - m, tiles - i);
    const void* more = BARE ? (const void*)pitch : (const void*)((const char*)next + i * K * 64);
    TILES<T, BARE>[mr - 1][n - 1](K, k, rows + m, b, slot, begin, bias, more);
    m += mr;
  }
}

// The same with a matrix that is not packed. Vectors of its last rows would pass its end,
// so these rows are packed first.
template <class T>
void bare(const Packed<T>& P, const Slot* slot, int64_t n, int64_t k0, int64_t K, int64_t M,
          const Row<T>* rows, Begin begin, const T* bias) {
  constexpr int W = Vector<T>::W;
  const jaxseq::Matrix& w = *P.bare;
  int64_t whole = K;
  for (int64_t v = 0; v < n; ++v)
    if (slot[v].count < W) {
      const int64_t room = w.rows * w.columns - W - slot[v].first;  // for k rows of the matrix
      whole = least(whole, room < 0 ? 0 : most(0, room / w.columns + 1 - k0));
    }
  strip<T, true>(n, whole, 0, M, rows, (const T*)w.data + k0 * w.columns, slot, begin, bias, w.columns);
  for (int64_t k = whole; k < K; ++k) {
    alignas(64) T last[MOST_VECTORS * W];
    P.pack(slot, w, n, k0 + k, k0 + k + 1, last);
    strip<T, false>(n, 1, k, M, rows, last, slot, ADD, nullptr, 0);
  }
}

// Rows times the panels of a piece, the part of K from k0 on. `bias` has all vectors of
// the results.
template <class T>
void product(const Packed<T>& P, int64_t piece, int64_t k0, int64_t K, int64_t M, const Row<T>* rows,
             Begin begin, const T* bias = nullptr) {
  constexpr int W = Vector<T>::W;
  for (int64_t p = P.begin[piece]; p < P.begin[piece + 1]; ++p) {
    const int64_t v0 = P.first[p], n = P.first[p + 1] - v0;
    const Slot* slot = P.slot + v0;
    const T* own = bias ? bias + v0 * W : nullptr;
    if (P.bare) {
      bare(P, slot, n, k0, K, M, rows, begin, own);
      continue;
    }
    const int64_t parts = most(1, over(K, BLOCK)), each = over(K, parts);
    for (int64_t k = 0; k < K; k += each)
      strip<T, false>(n, least(each, K - k), k, M, rows, P.panel(p) + (k0 + k) * n * W, slot,
                      k ? ADD : begin, own, 0);
  }
}

}  // namespace
