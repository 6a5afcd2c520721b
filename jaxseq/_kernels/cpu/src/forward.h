// The forward pass: what is shared, and who does what.
#pragma once
#include <atomic>

#include "block.h"

namespace {

using jaxseq::Workers;

template <class T>
struct Whole {
  const Layout<T>& layout;
  const Weights<T>& weights;
  std::atomic<bool> failed{false};
  Block<T>* block = nullptr;  // where there is but one: what is on
  typename Block<T>::Turn turn{};
  int64_t steps = 0;

  // what the thread that asks has for itself
  bool own(Own<T>& it, int64_t rows) {
    static thread_local Memory registers, table, left;
    it.registers = registers.take<T>(layout.registers, false);
    it.row = table.take<Row<T>>(rows, false);
    it.left = left.take<T>(rows * layout.pitch, false);
    if (!it.registers || !it.row || !it.left) failed = true;
    return it.registers && it.row && it.left;
  }
};

template <class T>
void run_block(void* whole, int64_t number) {
  static thread_local Memory memory;
  auto& w = *(Whole<T>*)whole;
  Own<T> own;
  T* m = memory.take<T>(w.layout.total);
  if (!m) w.failed = true;
  if (m && w.own(own, Block<T>::rows_of_products(w.layout))) Block<T>(w.layout, w.weights, number, m).run(own);
}

template <class T>
void project_piece(void* whole, int64_t i) {
  auto& w = *(Whole<T>*)whole;
  Own<T> own;
  if (w.own(own, Block<T>::rows_of_products(w.layout)))
    w.block->project(w.turn.t, w.steps, {i, w.layout.pieces}, own);
}

template <class T>
void run_piece(void* whole, int64_t i) {
  auto& w = *(Whole<T>*)whole;
  Own<T> own;
  if (!w.own(own, w.layout.rows)) return;
  w.block->constants(own, w.turn.first, w.layout.until[w.turn.first]);
  w.block->step(w.turn, {i, w.layout.pieces}, own);
}

// All threads run each step together: each has some of the columns.
template <class T>
void run_pieces(Whole<T>& w, const Workers& workers) {
  static thread_local Memory memory;
  const Layout<T>& L = w.layout;
  const Call& call = L.call;
  Own<T> own;
  T* m = memory.take<T>(L.total);
  if (!m) w.failed = true;
  if (!m || !w.own(own, L.rows)) return;
  Block<T> block(L, w.weights, 0, m);
  w.block = &block;
  block.begin(own);
  for (int64_t t0 = 0; t0 < call.T; t0 += L.steps) {
    w.steps = least(L.steps, call.T - t0), w.turn = {t0, 0, 0};
    workers.all(workers.context, L.pieces, project_piece<T>, &w);
    for (int64_t t = t0; t < t0 + w.steps; ++t) {
      block.reset(t);
      for (int64_t a = call.before; a < call.actions; a = L.until[a]) {
        w.turn = {t, t - t0, a};
        workers.all(workers.context, L.pieces, run_piece<T>, &w);
      }
    }
  }
  block.end();
}

template <class T>
struct Packing {
  const Call& call;
  const Weights<T>& weights;
  int64_t pieces;
  bool by_columns;  // a piece is what its thread reads later
};

template <class T>
void pack_some(void* packing, int64_t i) {
  auto& all = *(const Packing<T>*)packing;
  auto some = [&](const Packed<T>& P, const jaxseq::Matrix& w) {
    int64_t p = P.panels * i / all.pieces, end = P.panels * (i + 1) / all.pieces;
    if (all.by_columns) p = P.begin[i], end = P.begin[i + 1];
    for (; p < end && !P.bare; ++p) P.pack(w, p);
  };
  const Call& call = all.call;
  for (int64_t j = 0; j < call.inputs; ++j)
    if (call.input[j].has_w) some(all.weights.input[j], call.input[j].w);
  for (int64_t j = 0; j < call.products; ++j) some(all.weights.product[j], call.product[j].w);
}

#ifndef BARE_PASSES
#define BARE_PASSES 8  // of rows over a matrix, with which packing it is not worth its time
#endif

// Plans the packed matrices, and packs them.
template <class T>
bool pack(const Layout<T>& L, const Workers& workers, Weights<T>& weights) {
  static thread_local Memory panels, tables;
  constexpr int W = Vector<T>::W;
  const Call& call = L.call;
  const int64_t number = call.inputs + call.products;
  auto filled = [&](int64_t i) {
    return i < call.inputs ? L.filled(call.input[i]) : L.filled(call.product[i - call.inputs]);
  };
  auto matrix = [&](int64_t i) -> const jaxseq::Matrix& {
    return i < call.inputs ? call.input[i].w : call.product[i - call.inputs].w;
  };
  auto is = [&](int64_t i) { return i >= call.inputs || call.input[i].has_w; };
  int64_t vectors = 0, elements = 0, numbers = L.pieces;
  for (int64_t i = 0; i < number; ++i) {
    const int64_t v = L.vectors_of(filled(i));
    if (is(i)) vectors += v, elements += (matrix(i).rows + 1) * v * W, numbers += Packed<T>::room(v, L.pieces);
  }
  char* table = tables.take<char>(number * sizeof(Packed<T>) + call.inputs * sizeof(T*) +
                                  vectors * sizeof(Slot) + numbers * 8, false);
  if (!table) return false;
  auto* packed = (Packed<T>*)table;
  const T** bias = (const T**)(packed + number);
  Slot* slot = (Slot*)(bias + call.inputs);
  int64_t *ends = (int64_t*)(slot + vectors), *room = ends + L.pieces, size = 0;
  for (int64_t i = 0; i < number; ++i) {
    Packed<T>& P = packed[i];
    P = {};
    if (!is(i)) continue;
    const bool input = i < call.inputs;
    const int64_t M = input ? L.rows * L.steps : L.rows;
    const int64_t passes = over(call.T, input ? L.steps : 1) * L.blocks * over(M, BARE_ROWS);
    P.bare = passes <= BARE_PASSES && !matrix(i).transposed ? &matrix(i) : nullptr;
    P.type = matrix(i).data.type;
    P.pairs = P.type == jaxseq::BFLOAT16 && !P.bare ? call.pairs : nullptr;
    L.slots_of(filled(i), slot, ends);
    P.plan(matrix(i).rows, slot, ends, L.pieces, width_for(P.bare ? least(M, BARE_ROWS) : M), room);
    slot += P.vectors, room += Packed<T>::room(P.vectors, L.pieces), size += P.size();
  }
  T* data = panels.take<T>(size + vectors * W, false);
  if (!data) return false;
  for (int64_t i = 0; i < number; ++i) packed[i].data = data, data += packed[i].size();
  for (int64_t i = 0; i < call.inputs; ++i) {
    bias[i] = call.input[i].b ? data : nullptr;
    for (int64_t v = 0; bias[i] && v < packed[i].vectors; ++v, data += W) {
      const Slot& s = packed[i].slot[v];
      for (int64_t j = s.count; j < W; ++j) data[j] = T(0);
      read(call.input[i].b.at(s.first), data, s.count);
    }
  }
  weights = {packed, packed + call.inputs, bias};
  const bool by_columns = L.pieces > 1;
  const int64_t parts = by_columns ? L.pieces : size * sizeof(T) > 100000 ? 16 : 1;
  Packing<T> packing{call, weights, parts, by_columns};
  if (size) workers.all(workers.context, parts, pack_some<T>, &packing);
  return true;
}

// Large pages for results.
template <class T>
void widen_results(const Call& call) {
  const int64_t n = call.B * call.T;
  auto one = [&](Ref a, int64_t array) { widen(a.data, n * call.array[array].width * jaxseq::bytes_of(a.type)); };
  for (int64_t i = 0; i < call.outputs; ++i) one(call.output[i].y, call.output[i].array);
  for (int64_t i = 0; i < call.inputs; ++i) one(call.input[i].saved, call.input[i].array);
  for (int64_t i = 0; i < call.products; ++i) one(call.product[i].saved, call.product[i].array);
  for (int64_t i = 0; i < call.states; ++i) one(call.state[i].saved, call.state[i].array);
}

template <class T>
const char* forward(const Call& call, const Workers& workers) {
  static thread_local Memory tables;
  if (call.B == 0) return nullptr;
  Layout<T> L(call, workers.threads);
  Weights<T> weights;
  if (!L.plan(tables) || !pack(L, workers, weights)) return jaxseq::NO_MEMORY;
  widen_results<T>(call);
  Whole<T> whole{L, weights};
  if (L.pieces > 1) run_pieces(whole, workers);
  else workers.all(workers.context, L.blocks, run_block<T>, &whole);
  return whole.failed ? jaxseq::NO_MEMORY : nullptr;
}

}  // namespace
