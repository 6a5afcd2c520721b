// Products of a few rows with a matrix that has been packed.
#pragma once
#include "ahead.h"
#include "half.h"

namespace {

using jaxseq::ADD;
using jaxseq::Begin;
using jaxseq::BIAS;
using jaxseq::Row;
using jaxseq::Slot;
using jaxseq::ZERO;

// A matrix in panels of some vectors each, [panel][K][vectors]. The vectors come in
// pieces, for threads, and a panel is in one of them. Or it is bare: not packed, with its
// rows as they lie. In a matrix of pairs an element has two of bfloat16, of two rows that
// follow each other, and so has the left side.
template <class T>
struct Packed {
  static constexpr int W = Vector<T>::W;
  int64_t K, vectors, panels;
  const Slot* slot;  // of each vector
  int64_t* first;    // the first vector of each panel
  int64_t* begin;    // the first panel of each piece
  const jaxseq::Matrix* bare;
  jaxseq::Type type;  // of the matrix
  jaxseq::Pairs pairs;  // or null
  T* data;

  static int64_t room(int64_t vectors, int64_t pieces) { return vectors + pieces + 2; }
  int64_t depth() const { return pairs ? over(K, 2) : K; }
  T* panel(int64_t p) const { return data + first[p] * depth() * W; }
  int64_t size() const { return bare ? 0 : depth() * vectors * W; }

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
    if (pairs) return pack_pairs(w, p);
    pack(slot + first[p], w, first[p + 1] - first[p], 0, K, panel(p));
  }
  static void pack(const Slot* slot, const jaxseq::Matrix& w, int64_t n, int64_t k0, int64_t k1, T* to) {
    if (w.transposed)
      return pack_transposed(slot, n, k0, k1, to, [&](int64_t j, int64_t k, int64_t some, T* row) {
        read(w.data.at(j * w.rows + k), row, some);
      });
    by_type<T>(w.data.type, [&](auto s) { pack((const decltype(s)*)w.data, w.columns, slot, n, k0, k1, to); });
  }
  template <class S>
  static void pack(const S* data, int64_t columns, const Slot* slot, int64_t n, int64_t k0, int64_t k1, T* to) {
    for (int64_t k = k0; k < k1; ++k) {
      const S* row = data + k * columns;
      for (int64_t v = 0; v < n; ++v, to += W) {
        const Slot& s = slot[v];
        if (s.count == W)
          store<T>(to, load_wide(row + s.first));
        else
          for (int j = 0; j < W; ++j) to[j] = j < s.count ? number(row[s.first + j]) : T(0);
      }
    }
  }
  void pack_pairs(const jaxseq::Matrix& w, int64_t p) const {
    if (w.transposed)
      return pack_transposed(slot + first[p], first[p + 1] - first[p], 0, depth(), panel(p),
                             [&](int64_t j, int64_t k, int64_t some, T* row) {
                               const int64_t at = j * K + 2 * k;
                               memcpy(row, w.data.at(at).data, least(2 * some, K - 2 * k) * 2);
                             });
    T* to = panel(p);
    for (int64_t k = 0; k < K; k += 2) {
      const uint16_t* row = (const uint16_t*)w.data + k * w.columns;
      for (int64_t v = first[p]; v < first[p + 1]; ++v, to += W) {
        const uint16_t* a = row + slot[v].first;
        uint16_t some[2][WORDS] = {};
        const uint16_t *one = a, *two = k + 1 < K ? a + w.columns : some[1];
        if (const int64_t n = slot[v].count; n < W) {
          memcpy(some[0], one, n * 2), memcpy(some[1], two, n * 2);
          one = some[0], two = some[1];
        }
        store<float>((float*)to, (V<float>)(words(one) | words(two) << 16));
      }
    }
  }
  // `fetch` puts some elements of a column from k on side by side
  template <class F>
  static void pack_transposed(const Slot* slot, int64_t n, int64_t k0, int64_t k1, T* to, F fetch) {
    for (int64_t k = k0; k < k1; k += W, to += n * W * W) {
      const int64_t some = least(W, k1 - k);
      for (int64_t v = 0; v < n; ++v) {
        alignas(64) T square[W][W] = {};  // rows in memory, which may lie a multiple of 4096 bytes apart
        for (int64_t j = 0; j < slot[v].count; ++j) fetch(slot[v].first + j, k, some, square[j]);
        for (int64_t i = 0; i < some; ++i)
          for (int j = 0; j < W; ++j) to[(i * n + v) * W + j] = square[j][i];
      }
    }
  }
};

constexpr int64_t FAR = 8;  // rows of a bare matrix that are fetched ahead

// How the matrix of a tile lies: in panels, in panels of pairs, or bare, with elements of
// its own type.
struct Panel {
  static constexpr bool BARE = false;
  template <class T>
  static T each(const T* a) {
    return *a;
  }
  template <class T>
  static V<T> plus(V<T> sum, T a, V<T> w) {
    return sum + a * w;
  }
};
template <class S>
struct Bare {
  static constexpr bool BARE = true;
  typedef S Element;
};

template <class T>
using Tile = void (*)(int64_t, const Row<T>*, int64_t, const void*, int64_t, const Slot*, Begin, const T*, const void*);

// MR rows, from element k0 on, times NV vectors of a matrix, whose rows are `apart`. The
// slots have one pad. Of a panel some of the next is fetched.
template <class T, int MR, int NV, class How>
void tile(int64_t K, const Row<T>* rows, int64_t k0, const void* matrix, int64_t apart, const Slot* slot,
          Begin begin, const T* bias, const void* next) {
  constexpr int W = Vector<T>::W;
  V<T> sum[MR][NV];
  const T* a[MR];
  T* c[MR];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m) {
    a[m] = rows[m].a + k0;
    c[m] = rows[m].c + rows[m].row * slot[0].pad;
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v)
      sum[m][v] = begin == ZERO ? V<T>{} : load(begin == BIAS ? bias + v * W : c[m] + slot[v].at);
  }
  if constexpr (How::BARE) {
    typedef typename How::Element S;
    const S* w[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) w[v] = (const S*)matrix + slot[v].first;
    for (int64_t k = 0, at = 0; k < K; ++k, at += apart)
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        const V<T> x = load_wide(w[v] + at);
        if (MR <= 2) __builtin_prefetch(w[v] + at + FAR * apart);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) sum[m][v] += a[m][k] * x;
      }
  } else {
    const T* b = (const T*)matrix;
    const char* fetched = (const char*)next;
#pragma GCC unroll 2
    for (int64_t k = 0; k < K; ++k, b += apart) {
      V<T> w[NV];
      if (MR > 1) __builtin_prefetch(fetched + 64 * k, 0, 2);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) w[v] = *(const V<T>*)(b + v * W);
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m) {
        const auto s = How::each(a[m] + k);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) sum[m][v] = How::plus(sum[m][v], s, w[v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) store<T>(c[m] + slot[v].at, sum[m][v]);
}

// sums of a tile that are held in registers: of 32 where vectors have 64 bytes, else of 16
constexpr int SUMS = VECTOR_BYTES == 64 ? 24 : 12;
constexpr int MOST_ROWS = 8, MOST_VECTORS = 8;
constexpr int BARE_ROWS = 4;  // of a tile of a matrix that is not packed

template <class T, int MR, int NV, class How>
constexpr Tile<T> tile_of() {
  if constexpr (MR * NV <= SUMS && MR <= (How::BARE ? BARE_ROWS : MOST_ROWS))
    return tile<T, MR, NV, How>;
  else
    return nullptr;
}
#define ROW(MR)                                                                       \
  {tile_of<T, MR, 1, How>(), tile_of<T, MR, 2, How>(), tile_of<T, MR, 3, How>(),        \
   tile_of<T, MR, 4, How>(), tile_of<T, MR, 5, How>(), tile_of<T, MR, 6, How>(),        \
   tile_of<T, MR, 7, How>(), tile_of<T, MR, 8, How>()}
template <class T, class How>
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

// Rows, from element k0 on, times K rows of n vectors of a matrix, which are `apart`.
template <class T, class How>
void strip(int64_t n, int64_t K, int64_t k0, int64_t M, const Row<T>* rows, const void* matrix, int64_t apart,
           const Slot* slot, Begin begin, const T* bias, Ahead* ahead = nullptr) {
  constexpr int W = Vector<T>::W;
  const int64_t high = least(How::BARE ? BARE_ROWS : MOST_ROWS, SUMS / n), tiles = over(M, high);
  const char* next = (const char*)matrix + K * n * VECTOR_BYTES;
  for (int64_t i = 0, m = 0; i < tiles; ++i) {
    const int64_t mr = over(M - m, tiles - i);
    if (ahead) ahead->fetch(K / 4);
    for (int64_t v = 0, some; v < n; v += some) {
      for (some = 1; v + some < n && slot[v + some].pad == slot[v].pad;) ++some;
      const void* own = How::BARE ? matrix : (const T*)matrix + v * W;
      TILES<T, How>[mr - 1][some - 1](K, rows + m, k0, own, apart, slot + v, begin, bias ? bias + v * W : nullptr,
                                      next + i * K * 64);
    }
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
  by_type<T>(P.type, [&](auto s) {
    const void* from = w.data.at(k0 * w.columns).data;
    strip<T, Bare<decltype(s)>>(n, whole, 0, M, rows, from, w.columns, slot, begin, bias);
  });
  for (int64_t k = whole; k < K; ++k) {
    alignas(64) T last[MOST_VECTORS * W];
    P.pack(slot, w, n, k0 + k, k0 + k + 1, last);
    strip<T, Panel>(n, 1, k, M, rows, last, n * W, slot, ADD, nullptr);
  }
}

// Rows times the panels of a piece, the part of K from k0 on; of pairs all of them.
// `bias` has all vectors of the results. Of a matrix larger than the cache some panels are
// still there if each step begins with those that the one before ended with.
template <class T>
void product(const Packed<T>& P, int64_t piece, int64_t k0, int64_t K, int64_t M, const Row<T>* rows,
             Begin begin, const T* bias, bool last_first, Ahead* ahead) {
  constexpr int W = Vector<T>::W;
  const int64_t first = P.begin[piece], end = P.begin[piece + 1];
  for (int64_t i = first; i < end; ++i) {
    const int64_t p = last_first ? first + end - 1 - i : i;
    const int64_t v0 = P.first[p], n = P.first[p + 1] - v0;
    const Slot* slot = P.slot + v0;
    const T* own = bias ? bias + v0 * W : nullptr;
    if (P.bare) {
      bare(P, slot, n, k0, K, M, rows, begin, own);
      continue;
    }
    if constexpr (sizeof(T) == 4)
      if (P.pairs) {
        ahead->fetch(over(M, MOST_ROWS) * K / 4);
        P.pairs(n, P.depth(), M, rows, P.panel(p), slot, begin, own);
        continue;
      }
    const int64_t parts = most(1, over(K, BLOCK)), each = over(K, parts);
    for (int64_t k = 0; k < K; k += each)
      strip<T, Panel>(n, least(each, K - k), k, M, rows, P.panel(p) + (k0 + k) * n * W, n * W, slot,
                      k ? ADD : begin, own, ahead);
  }
}

inline bool is_half(Ref a) { return jaxseq::bytes_of(a.type) == 2; }

// K elements as pairs of bfloat16, in `to` or where they lie.
template <class T>
const T* as_pairs(Ref from, int64_t K, T* to) {
  if (is_half(from) && K % 2 == 0) return (const T*)from;
  if (is_half(from)) memcpy(to, from.data, K * 2);
  else write((const T*)from, Ref{to, jaxseq::BFLOAT16}, K);
  if (K % 2) ((uint16_t*)to)[K] = 0;
  return to;
}

// The left side of a product as its matrix needs it, of K elements in `to`, or where it
// lies: rounded to the type of the matrix, and pairs of that, or wide.
template <class T>
const T* left(const Packed<T>& P, Ref from, int64_t K, T* to) {
  if (P.pairs) return as_pairs(from, K, to);
  if (is_half(from)) read(from, to, K);
  else if (P.type == from.type) return (const T*)from;
  else round_to(P.type, (const T*)from, to, K);
  return to;
}

}  // namespace
