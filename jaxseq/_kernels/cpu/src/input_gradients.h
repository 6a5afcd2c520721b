// Gradients of what matrices were applied to, from the gradient d of z = a w + ... + b:
// products of d with the matrices transposed.
#pragma once
#include <atomic>

#include "tiles.h"

namespace {

constexpr int64_t CHUNK = 64;     // rows that are multiplied by all of a matrix
constexpr int64_t LENGTH = 1024;  // of a product, before the next panel

// d times a matrix transposed, which is packed first.
template <class T>
struct Back {
  static constexpr int W = Vector<T>::W;
  const Gradients& call;
  const jaxseq::Right& right;
  const jaxseq::PairSums pairs;  // null if they are not multiplied
  Panels<T> panels;
  T* data;
  std::atomic<bool> failed{false};

  int64_t depth() const { return pairs ? over(call.width, 2) : call.width; }

  // a panel, by small squares: rows of w may lie a multiple of 4096 bytes apart
  void pack(int64_t p) const {
    const int64_t n = panels.size(p);
    T* to = data + panels.at(p, depth());
    for (int64_t k = 0; k < depth(); k += W)
      for (int64_t v = 0; v < n; ++v) {
        const int64_t first = (panels.first(p) + v) * W, there = least(W, depth() - k);
        alignas(64) T square[W][W] = {};
        for (int64_t j = 0; j < least(W, right.dx.width - first); ++j) {
          const Ref row = right.w.at((first + j) * call.width);
          if (pairs) memcpy(square[j], row.at(2 * k).data, least(2 * there, call.width - 2 * k) * 2);
          else read(row.at(k), square[j], there);
        }
        for (int64_t i = 0; i < there; ++i)
          for (int j = 0; j < W; ++j) to[((k + i) * n + v) * W + j] = square[j][i];
      }
  }
  // the rows of a chunk; those of d and of the result are as they are computed with, or in
  // memory of their own
  bool run(int64_t chunk) const {
    static thread_local Memory memory;
    const int64_t first = chunk * CHUNK, n = least(CHUNK, call.T * call.B - first);
    const int64_t parts = over(depth(), LENGTH), length = over(depth(), parts);
    const int64_t tiles = panels.number() * over(n, HIGH);
    // the rows of the next chunk, in equal parts for each step of a tile
    const int64_t more = least(CHUNK, call.T * call.B - first - n) * call.width * jaxseq::bytes_of(call.d.type);
    const int64_t apart = over(more, tiles * depth());
    const char* next = (const char*)call.d.at((first + (more ? n : 0)) * call.width).data;
    const bool is_own = right.dx.data.type != type_of<T>();
    const bool is_read = pairs || is_half(call.d);  // not where it lies
    T* own = memory.take<T>(CHUNK * (WIDE * W + is_read * depth()), false);
    if (!own) return false;
    const T* from[CHUNK];
    Ref to[CHUNK];
    for (int64_t r = 0; r < n; ++r) {
      const Ref d = call.d.at((first + r) * call.width);
      T* room = own + CHUNK * WIDE * W + r * depth();
      to[r] = row_of(call, right.dx, first + r);
      if (pairs) from[r] = as_pairs(d, call.width, room);
      else if (is_half(d)) read(d, room, call.width), from[r] = room;
      else from[r] = (const T*)d;
    }
    for (int64_t p = 0; p < panels.number(); ++p) {
      const int64_t wide = panels.size(p), filled = panels.filled(p), column = panels.first(p) * W;
      for (int64_t k = 0; k < depth(); k += length)
        for (int64_t r = 0; r < n; r += HIGH) {
          const int64_t rows = least(HIGH, n - r);
          Side<T> side{};
          side.ahead = next, side.apart = apart, next += least(length, depth() - k) * apart;
          T* c[HIGH];
          for (int64_t m = 0; m < HIGH; ++m) {
            const int64_t i = r + least(m, rows - 1);
            side.row[m] = from[i] + k;
            c[m] = is_own ? own + i * wide * W : (T*)to[i].at(column);
          }
          sums<T, false>(least(length, depth() - k), side, wide, data + panels.at(p, depth()) + k * wide * W, c, rows,
                         is_own ? wide * W : filled, k > 0, pairs);
        }
      for (int64_t r = 0; is_own && r < n; ++r) write(own + r * wide * W, to[r].at(column), filled);
    }
    return true;
  }
};

template <class T>
void pack_panel(void* back, int64_t p) {
  ((const Back<T>*)back)->pack(p);
}
template <class T>
void run_chunk(void* back, int64_t i) {
  auto& b = *(Back<T>*)back;
  if (!b.run(i)) b.failed = true;
}

}  // namespace
