// From the gradient d of z = a w + ... + b, for many rows: those of matrices and of b, sums
// over all rows, and those of what the matrices were applied to, products with them
// transposed. Each element of a result is summed in one order, however many threads there
// are.
#pragma once
#include <atomic>

#include "tiles.h"

namespace {

using jaxseq::Workers;

constexpr int64_t DEEP = 192;    // rows of d that are packed at a time
constexpr int64_t TALL = 512;    // columns of the left sides that are packed at a time
constexpr int64_t GROUP = 8;     // rows that are packed together
constexpr int64_t CHUNK = 64;    // rows that are multiplied by all of a matrix
constexpr int64_t LENGTH = 1024;  // of a product, before the next panel

template <class T>
struct Sums {
  const Gradients& call;
  int64_t across, down;  // pieces: some panels of d, times some columns of the left sides
  std::atomic<bool> failed{false};
};

// All rows of d and of the left sides, for some panels and some tiles of columns.
template <class T>
class Piecewise {
 public:
  Piecewise(const Sums<T>& all, int64_t i) : call(all.call), panels{call.width} {
    const int64_t x = i % all.across, y = i / all.across;
    p0 = panels.number() * x / all.across, p1 = panels.number() * (x + 1) / all.across;
    m0 = tiles(call) * y / all.down, m1 = tiles(call) * (y + 1) / all.down;
    with_b = y == 0 && call.db;
  }
  static int64_t tiles(const Gradients& call) {
    int64_t n = 0;
    for (int64_t i = 0; i < call.lefts; ++i) n += over(call.left[i].a.width, HIGH);
    return n;
  }

  bool run() {
    static thread_local Memory memory;
    const int64_t some = least(over(TALL, HIGH), m1 - m0), own = panels.first(p1) - panels.first(p0);
    const int64_t size = panels.at(p1, DEEP) - panels.at(p0, DEEP);
    T* data = memory.take<T>(size + (some + 4) * DEEP * HIGH + own * W, false);
    if (!data) return false;
    right = data - panels.at(p0, DEEP), left = data + size;
    total = left + (some + 4) * DEEP * HIGH - panels.first(p0) * W;
    memset(total + panels.first(p0) * W, 0, own * W * sizeof(T));
    const int64_t rows = call.T * call.B;
    for (int64_t k0 = 0; k0 < rows || k0 == 0; k0 += DEEP) {
      const int64_t K = least(DEEP, rows - k0);
      pack_right(k0, K);
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

  void pack_right(int64_t k0, int64_t K) {
    for (int64_t k = 0; k < K; k += GROUP)
      for (int64_t p = p0; p < p1; ++p) {
        const int64_t n = panels.size(p), filled = panels.filled(p), rows = least(GROUP, K - k);
        const T* from = (const T*)call.d + (k0 + k) * call.width + panels.first(p) * W;
        T *to = right + panels.at(p, DEEP) + k * n * W, *sum = total + panels.first(p) * W;
        if (n == 3) pack<3>(from, to, sum, rows, filled);
        else if (n == 2) pack<2>(from, to, sum, rows, filled);
        else pack<1>(from, to, sum, rows, filled);
      }
  }
  template <int N>
  void pack(const T* from, T* to, T* total, int64_t rows, int64_t filled) {
    V<T> sum[N] = {};
    for (int64_t k = 0; k < rows; ++k, from += call.width, to += N * W)
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) {
        V<T> x{};
        __builtin_prefetch(from + GROUP * call.width + v * W);
        const int64_t n = filled - v * W;
        if (n >= W) x = load(from + v * W);
        else if (n > 0) memcpy(&x, from + v * W, n * sizeof(T));
        store<T>(to + v * W, x), sum[v] += x;
      }
    for (int v = 0; v < N; ++v) store<T>(total + v * W, load(total + v * W) + sum[v]);
  }

  // The tiles from m on: packed, and multiplied by all panels.
  void add(int64_t k0, int64_t K, int64_t m, int64_t end) {
    T* to = left;
    each(m, end, [&](const jaxseq::Left& l, int64_t first, int64_t last) {
      const T* row[DEEP];
      for (int64_t k = 0; k < K; ++k) row[k] = row_of<T>(call, l.a, k0 + k);
      for (int64_t k = 0; k < K; k += GROUP)
        for (int64_t j = first; j < last; ++j)
          pack_left(row + k, j * HIGH, least(HIGH, l.a.width - j * HIGH), least(GROUP, K - k),
                    to + ((j - first) * DEEP + k) * HIGH);
      to += (last - first) * DEEP * HIGH;
    });
    for (int64_t p = p0; p < p1; ++p) {
      Side<T> side{left, {}};
      each(m, end, [&](const jaxseq::Left& l, int64_t first, int64_t last) {
        T* c = (T*)l.dw + first * HIGH * call.width + panels.first(p) * W;
        for (int64_t j = first; j < last; ++j, side.packed += DEEP * HIGH) {
          T* row[HIGH];
          for (int64_t i = 0; i < HIGH; ++i, c += call.width) row[i] = c;
          sums<T, true>(K, side, panels.size(p), right + panels.at(p, DEEP), row,
                        least(HIGH, l.a.width - j * HIGH), panels.filled(p), k0 > 0);
        }
      });
    }
  }
  static void pack_left(const T* const* row, int64_t column, int64_t columns, int64_t rows, T* to) {
    for (int64_t k = 0; k < rows; ++k, to += HIGH)
      if (columns == HIGH) memcpy(to, row[k] + column, HIGH * sizeof(T));
      else
        for (int64_t j = 0; j < HIGH; ++j) to[j] = j < columns ? row[k][column + j] : T(0);
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

template <class T>
void run_sums(void* all, int64_t i) {
  auto& s = *(Sums<T>*)all;
  if (!Piecewise<T>(s, i).run()) s.failed = true;
}

// d times a matrix transposed, which is packed first.
template <class T>
struct Back {
  static constexpr int W = Vector<T>::W;
  const Gradients& call;
  const jaxseq::Right& right;
  Panels<T> panels;
  T* data;

  // a panel, by small squares: rows of w may lie a multiple of 4096 bytes apart
  void pack(int64_t p) const {
    const int64_t n = panels.size(p);
    T* to = data + panels.at(p, call.width);
    for (int64_t k = 0; k < call.width; k += W)
      for (int64_t v = 0; v < n; ++v) {
        const int64_t first = (panels.first(p) + v) * W, there = least(W, call.width - k);
        alignas(64) T square[W][W] = {};
        for (int64_t j = 0; j < least(W, right.dx.width - first); ++j) {
          const T* from = (const T*)right.w + (first + j) * call.width + k;
          if (there == W) store<T>(square[j], load(from));
          else memcpy(square[j], from, there * sizeof(T));
        }
        for (int64_t i = 0; i < there; ++i)
          for (int j = 0; j < W; ++j) to[((k + i) * n + v) * W + j] = square[j][i];
      }
  }
  void run(int64_t chunk) const {
    const int64_t first = chunk * CHUNK, end = least(first + CHUNK, call.T * call.B);
    const int64_t parts = over(call.width, LENGTH), length = over(call.width, parts);
    T* to[CHUNK];
    for (int64_t r = first; r < end; ++r) to[r - first] = (T*)row_of<T>(call, right.dx, r);
    for (int64_t p = 0; p < panels.number(); ++p)
      for (int64_t k = 0; k < call.width; k += length)
        for (int64_t r = first; r < end; r += HIGH) {
          const int64_t rows = least(HIGH, end - r), n = panels.size(p);
          Side<T> side{};
          T* c[HIGH];
          for (int64_t m = 0; m < HIGH; ++m) {
            const int64_t own = r + least(m, rows - 1);
            side.row[m] = (const T*)call.d + own * call.width + k;
            c[m] = to[own - first] + panels.first(p) * W;
          }
          sums<T, false>(least(length, call.width - k), side, n, data + panels.at(p, call.width) + k * n * W, c,
                         rows, panels.filled(p), k > 0);
        }
  }
};

template <class T>
void pack_panel(void* back, int64_t p) {
  ((const Back<T>*)back)->pack(p);
}
template <class T>
void run_chunk(void* back, int64_t i) {
  ((const Back<T>*)back)->run(i);
}

template <class T>
const char* gradients(const Gradients& call, const Workers& workers) {
  static thread_local Memory memory;
  auto all = [&](int64_t n, void (*f)(void*, int64_t), void* a) { workers.all(workers.context, n, f, a); };
  const int64_t tiles = Piecewise<T>::tiles(call), panels = Panels<T>{call.width}.number();
  const int64_t rows = call.T * call.B;
  if (tiles > 0 || call.db) {
    for (int64_t i = 0; i < call.lefts; ++i)
      widen(call.left[i].dw, call.left[i].a.width * call.width * sizeof(T));
    // columns of d first: what is packed of the left sides is packed for each of them
    const int64_t threads = rows * tiles * panels < 4096 ? 1 : workers.threads;
    const int64_t pieces = threads > 1 ? 2 * threads : 1;
    const int64_t across = most(1, least(pieces, panels / 4));
    Sums<T> s{call, across, most(1, least(over(pieces, across), tiles / 4))};
    all(s.across * s.down, run_sums<T>, &s);
    if (s.failed) return jaxseq::NO_MEMORY;
  }
  for (int64_t i = 0; i < call.rights && rows > 0; ++i) {
    const jaxseq::Right& r = call.right[i];
    widen((void*)r.dx.data, rows * r.dx.width * sizeof(T));
    Back<T> back{call, r, {r.dx.width}, nullptr};
    back.data = memory.take<T>(back.panels.room(call.width), false);
    if (!back.data) return jaxseq::NO_MEMORY;
    all(back.panels.number(), pack_panel<T>, &back);
    all(over(rows, CHUNK), run_chunk<T>, &back);
  }
  return nullptr;
}

}  // namespace
