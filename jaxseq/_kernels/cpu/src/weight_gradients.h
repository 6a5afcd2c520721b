// Gradients of matrices and of b, from the gradient d of z = a w + ... + b: sums over all
// rows. Each element of a result is summed in one order, however many threads there are.
#pragma once
#include <atomic>
#include <type_traits>

#include "ahead.h"
#include "tiles.h"

namespace {

constexpr int64_t DEEP = 192;    // rows of d, or pairs of them, that are packed at a time
constexpr int64_t TALL = 512;    // columns of the left sides that are packed at a time
constexpr int64_t GROUP = 8;     // rows that are packed together
constexpr int64_t FETCHED = 32;  // lines of memory that are fetched with a tile

inline int64_t tiles_of(const Gradients& call) {
  int64_t n = 0;
  for (int64_t i = 0; i < call.lefts; ++i) n += over(call.left[i].a.width, HIGH);
  return n;
}

template <class T>
struct Sums {
  const Gradients& call;
  int64_t across, down;  // pieces: some panels of d, times some columns of the left sides
  std::atomic<bool> failed{false};
};

// All rows of d and of the left sides, for some panels and some tiles of columns. With
// DEPTH 2, rows are packed in pairs of bfloat16.
template <class T, int DEPTH>
class Piecewise {
 public:
  Piecewise(const Sums<T>& all, int64_t i) : call(all.call), panels{call.width} {
    const int64_t x = i % all.across, y = i / all.across;
    p0 = panels.number() * x / all.across, p1 = panels.number() * (x + 1) / all.across;
    m0 = tiles_of(call) * y / all.down, m1 = tiles_of(call) * (y + 1) / all.down;
    with_b = y == 0 && call.db;
  }
  bool run() {
    static thread_local Memory memory;
    const int64_t some = least(over(TALL, HIGH), m1 - m0), own = panels.first(p1) - panels.first(p0);
    const int64_t size = panels.at(p1, DEEP) - panels.at(p0, DEEP);
    T* data = memory.take<T>(size + some * DEEP * HIGH + own * W + GROUP * some * HIGH, false);
    if (!data) return false;
    right = data - panels.at(p0, DEEP), left = data + size;
    total = left + some * DEEP * HIGH - panels.first(p0) * W;
    wide = total + panels.first(p1) * W;
    memset(total + panels.first(p0) * W, 0, own * W * sizeof(T));
    const int64_t rows = call.T * call.B;
    for (int64_t k0 = 0; k0 < rows || k0 == 0; k0 += DEEP * DEPTH) {
      const int64_t K = least(DEEP * DEPTH, rows - k0);
      pack_right(k0, K);
      look_ahead(k0 + K, least(DEEP * DEPTH, rows - k0 - K));
      for (int64_t m = m0; m < m1; m += some) add(k0, K, m, least(m + some, m1));
    }
    for (int64_t p = p0; with_b && p < p1; ++p)
      memcpy((T*)call.db + panels.first(p) * W, total + panels.first(p) * W, panels.filled(p) * sizeof(T));
    return true;
  }

 private:
  static constexpr int W = Vector<T>::W;
  const Gradients& call;
  const Panels<T> panels;
  int64_t p0, p1, m0, m1;
  bool with_b;
  T *right, *left, *total;
  T* wide;  // rows of a left side that are not as they are computed with
  Ahead ahead;

  // What the next rows are packed from.
  void look_ahead(int64_t k0, int64_t K) {
    ahead.clear();
    if (K < 1) return;
    const int64_t column = panels.first(p0) * W, columns = least(panels.first(p1) * W, call.width) - column;
    const int64_t size = jaxseq::bytes_of(call.d.type);
    ahead.add(call.d.at(k0 * call.width + column).data, K, call.width * size, columns * size);
    each(m0, m1, [&](const jaxseq::Left& l, int64_t first, int64_t last) {
      const int64_t own = least(last * HIGH, l.a.width) - first * HIGH, bytes = jaxseq::bytes_of(l.a.data.type);
      for (int64_t k = k0, some; k < k0 + K; k += some) {
        // those of one step are evenly apart, or those of all steps
        const bool all = !l.a.first && (!l.a.batch_first || call.B == 1);
        some = least(all ? K : call.B - k % call.B, k0 + K - k);
        const Ref row = row_of(call, l.a, k), next = row_of(call, l.a, k + (some > 1));
        ahead.add(row.at(first * HIGH).data, some, (char*)next.data - (char*)row.data, own * bytes);
      }
    });
  }

  void pack_right(int64_t k0, int64_t K) {
    by_type<T>(call.d.type, [&](auto s) { pack_right((const decltype(s)*)call.d + k0 * call.width, K); });
  }
  template <class S>
  void pack_right(const S* d, int64_t K) {
    for (int64_t k = 0; k < K; k += GROUP)
      for (int64_t p = p0; p < p1; ++p) {
        const int64_t n = panels.size(p), filled = panels.filled(p), rows = least(GROUP, K - k);
        const S* from = d + k * call.width + panels.first(p) * W;
        T *to = right + panels.at(p, DEEP) + k / DEPTH * n * W, *sum = total + panels.first(p) * W;
        if (n == 3) pack<3>(from, to, sum, rows, filled);
        else if (n == 2) pack<2>(from, to, sum, rows, filled);
        else pack<1>(from, to, sum, rows, filled);
      }
  }
  template <int N, class S>
  void pack(const S* from, T* to, T* total, int64_t rows, int64_t filled) {
    V<T> sum[N] = {};
    for (int64_t k = 0; k < rows; k += DEPTH, from += DEPTH * call.width, to += N * W)
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) {
        V<T> x[DEPTH] = {};
        const int64_t n = filled - v * W;
#pragma GCC unroll 2
        for (int i = 0; i < DEPTH; ++i) {
          const S* row = from + i * call.width + v * W;
          __builtin_prefetch(row + GROUP * call.width);
          if (k + i >= rows) continue;
          if (n >= W) x[i] = load_wide(row);
          else if (n > 0) copy(row, (T*)&x[i], n);
          sum[v] += x[i];
        }
        if constexpr (DEPTH == 1) store<T>(to + v * W, x[0]);
        else store<T>(to + v * W, (V<T>)(narrowed(Bfloat16{}, x[0]) | narrowed(Bfloat16{}, x[1]) << 16));
      }
    for (int v = 0; v < N; ++v) store<T>(total + v * W, load(total + v * W) + sum[v]);
  }

  // The tiles from m on: packed, and multiplied by all panels.
  void add(int64_t k0, int64_t K, int64_t m, int64_t end) {
    T* to = left;
    each(m, end, [&](const jaxseq::Left& l, int64_t first, int64_t last) {
      for (int64_t k = 0; k < K; k += GROUP) {
        const int64_t rows = least(GROUP, K - k), columns = least(last * HIGH, l.a.width) - first * HIGH;
        const void* row[GROUP];
        for (int64_t i = 0; i < rows; ++i) {
          const Ref a = row_of(call, l.a, k0 + k + i).at(first * HIGH);
          row[i] = a.data;
          if (DEPTH > 1 || a.type == type_of<T>()) continue;
          row[i] = wide + i * columns;
          read(a, wide + i * columns, columns);
        }
        for (int64_t j = 0; j < last - first; ++j)
          pack_left(row, j * HIGH, least(HIGH, columns - j * HIGH), rows, to + (j * DEEP + k / DEPTH) * HIGH);
      }
      to += (last - first) * DEEP * HIGH;
    });
    for (int64_t p = p0; p < p1; ++p) {
      Side<T> side{left, {}, nullptr, 0};
      each(m, end, [&](const jaxseq::Left& l, int64_t first, int64_t last) {
        T* c = (T*)l.dw + first * HIGH * call.width + panels.first(p) * W;
        for (int64_t j = first; j < last; ++j, side.packed += DEEP * HIGH) {
          T* row[HIGH];
          for (int64_t i = 0; i < HIGH; ++i, c += call.width) row[i] = c;
          ahead.fetch(FETCHED);
          sums<T, true>(over(K, DEPTH), side, panels.size(p), right + panels.at(p, DEEP), row,
                        least(HIGH, l.a.width - j * HIGH), panels.filled(p), k0 > 0,
                        DEPTH > 1 ? call.pairs : nullptr);
        }
      });
    }
  }
  static void pack_left(const void* const* row, int64_t column, int64_t columns, int64_t rows, T* to) {
    typedef std::conditional_t<DEPTH == 1, T, uint16_t> S;
    for (int64_t k = 0; k < rows; k += DEPTH, to += HIGH) {
      S a[DEPTH][HIGH] = {};
      for (int i = 0; i < DEPTH && k + i < rows; ++i) {
        const S* from = (const S*)row[k + i] + column;
        if (columns == HIGH) memcpy(a[i], from, sizeof(a[i]));
        else memcpy(a[i], from, columns * sizeof(S));
      }
      if constexpr (DEPTH == 1) memcpy(to, a, sizeof(a));
      else
        for (int j = 0; j < HIGH; ++j) ((uint32_t*)to)[j] = a[0][j] | uint32_t(a[1][j]) << 16;
    }
  }
  // f(left side, its first tile, where they end) for the tiles from m on
  template <class F>
  void each(int64_t m, int64_t end, F f) {
    for (int64_t i = 0, before = 0; i < call.lefts; ++i) {
      const int64_t own = over(call.left[i].a.width, HIGH);
      const int64_t first = most(0, m - before), last = least(own, end - before);
      if (first < last) f(call.left[i], first, last);
      before += own;
    }
  }
};

// Into how many pieces panels and tiles are split: those that take the least time, if a
// tile times a panel takes 12, and packing for a row 24 a panel and 8 a tile.
inline void split(int64_t panels, int64_t tiles, int64_t threads, int64_t& across, int64_t& down) {
  int64_t best = INT64_MAX;
  for (int64_t a = 1; a <= least(panels, 2 * threads); ++a)
    for (int64_t d = least(tiles, over(threads, a)); d <= least(tiles, over(2 * threads, a)); ++d) {
      const int64_t p = over(panels, a), t = over(tiles, d);
      const int64_t time = over(a * d, threads) * (12 * p * t + 24 * p + 8 * t);
      if (time < best) best = time, across = a, down = d;
    }
}

template <class T, int DEPTH>
void run_sums(void* all, int64_t i) {
  auto& s = *(Sums<T>*)all;
  if (!Piecewise<T, DEPTH>(s, i).run()) s.failed = true;
}

// Whether all left sides are of bfloat16, and there is a way to multiply pairs of that.
inline bool by_pairs(const Gradients& call) {
  bool are = call.pairs && call.lefts > 0;
  for (int64_t i = 0; are && i < call.lefts; ++i) are = call.left[i].a.data.type == jaxseq::BFLOAT16;
  return are;
}

}  // namespace
