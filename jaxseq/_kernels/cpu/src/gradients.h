// From the gradient d of z = a w + ... + b, for many rows: those of matrices, of b, and of
// what the matrices were applied to.
#pragma once
#include "input_gradients.h"
#include "weight_gradients.h"

namespace {

using jaxseq::Workers;

template <class T>
const char* gradients(const Gradients& call, const Workers& workers) {
  static thread_local Memory memory;
  auto all = [&](int64_t n, void (*f)(void*, int64_t), void* a) { workers.all(workers.context, n, f, a); };
  const int64_t tiles = tiles_of(call), panels = Panels<T>{call.width}.number();
  const int64_t rows = call.T * call.B;
  if (tiles > 0 || call.db) {
    for (int64_t i = 0; i < call.lefts; ++i)
      widen(call.left[i].dw, call.left[i].a.width * call.width * sizeof(T));
    Sums<T> s{call, 1, 1};
    const int64_t most_tiles = most(1, tiles);  // a bias alone has none
    if (rows * most_tiles * panels >= 4096) split(panels, most_tiles, workers.threads, s.across, s.down);
    auto run = run_sums<T, 1>;
    if constexpr (sizeof(T) == 4 && VECTOR_BYTES == 64)
      if (by_pairs(call)) run = run_sums<T, 2>;
    all(s.across * s.down, run, &s);
    if (s.failed) return jaxseq::NO_MEMORY;
  }
  for (int64_t i = 0; i < call.rights && rows > 0; ++i) {
    const jaxseq::Right& r = call.right[i];
    widen(r.dx.data.data, rows * r.dx.width * jaxseq::bytes_of(r.dx.data.type));
    // each element of dx is rounded once, when it is written: d is not
    const bool pairs = call.d.type == jaxseq::BFLOAT16 && r.w.type == jaxseq::BFLOAT16;
    Back<T> back{call, r, pairs ? call.pairs : nullptr, {r.dx.width}, nullptr};
    back.data = memory.take<T>(back.panels.room(back.depth()), false);
    if (!back.data) return jaxseq::NO_MEMORY;
    all(back.panels.number(), pack_panel<T>, &back);
    all(over(rows, CHUNK), run_chunk<T>, &back);
    if (back.failed) return jaxseq::NO_MEMORY;
  }
  return nullptr;
}

}  // namespace
