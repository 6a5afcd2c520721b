// Where everything lies while a block of rows runs.
#pragma once
#include "outside.h"
#include "product.h"
#include "program.h"

namespace {

using jaxseq::Action;
using jaxseq::Array;
using jaxseq::Call;
using jaxseq::Place;

// A column in the memory of a block: its rows are `pad` apart, from `at` on.
struct Column {
  int64_t first, length, at, pad;
};

// An array in the memory of a block: `slots` times `size`, from `base` on. Or its rows are
// those of an array of the call.
struct Room {
  const Column* column;
  int64_t columns, base, size, slots;
  jaxseq::Strided outside;
};

// One of some pieces of all columns: of each as large a part of its vectors.
struct Piece {
  int64_t i = 0, n = 1;
};

// What steps read and write is fetched ahead if all of it has more bytes than this, and
// if the matrices of a step have as many elements.
constexpr int64_t AHEAD_BYTES = 1 << 22, AHEAD_WEIGHTS = 8192;

// Rows are split over threads, in blocks, or if there are few the columns, in pieces.
template <class T>
struct Layout {
  static constexpr int W = Vector<T>::W;
  const Call& call;
  int64_t rows, blocks, steps;  // rows of a block; steps that are projected at a time
  int64_t pieces;
  int64_t total = 0, registers = 0;  // elements of a block's memory, and of that for runs
  Room* room;
  int64_t* scratch;  // of each action, where its registers are
  int64_t* until;    // of each action, where what needs all that it and others gave begins
  int64_t rest;      // a row of zeros, for x of a step that is not valid
  bool looks_ahead = false;  // whether what steps read and write is worth fetching ahead
  int64_t pitch;     // of rows of the left side of a product, where they are not taken as they lie
  Column* column;

  explicit Layout(const Call& call, int64_t threads) : call(call) {
    const int64_t B = call.B, few = most(1, least(threads, B / 4));
    pieces = least(threads, pieces_for(B));
    if (pieces <= few) pieces = 1;
    blocks = pieces > 1 ? 1 : most(1, over(B, call.rows));
    if (pieces == 1 && few > 1) blocks = over(blocks, few) * few;
    rows = most(1, over(B, blocks));
    blocks = over(B, rows);
    steps = most(1, least(call.T, over(64, rows)));
  }

  // Into how many pieces a step is worth splitting, of 32 units or more. In n pieces it
  // takes time / n and about n times 500 ns for threads to meet: least with n * n of them
  // in time. An estimate.
  int64_t pieces_for(int64_t B) const {
    int64_t size = 0, widest = 0;
    for (int64_t i = call.before; i < call.actions; ++i) {
      const Action& a = call.action[i];
      if (a.is_fold || (a.is_run && a.run.has_one)) return 1;  // it needs a whole row
      if (a.is_run) continue;
      const jaxseq::Matrix& w = call.product[a.multiply.matrix].w;
      size += w.rows * w.columns;
    }
    for (int64_t i = 0; i < call.states; ++i) widest = most(widest, call.state[i].width);
    const int64_t read = size * sizeof(T) / 60, computed = size * 2 * B * sizeof(T) / 400;
    const int64_t time = most(read, computed);  // in ns, of one thread
    int64_t n = 1;
    while (n < widest / 32 && (n + 1) * (n + 1) * 500 <= time) ++n;
    return n;
  }

  static int64_t columns_of(const Call& call) {
    int64_t n = 0;
    for (int64_t i = 0; i < call.arrays; ++i) n += call.array[i].columns;
    return n;
  }

  // `memory` holds the tables
  bool plan(Memory& memory) {
    const int64_t n = columns_of(call);
    char* p = memory.take<char>(call.arrays * sizeof(Room) + n * sizeof(Column) + call.actions * 16);
    if (!p) return false;
    room = (Room*)p, column = (Column*)(room + call.arrays), scratch = (int64_t*)(column + n);
    until = scratch + call.actions;
    Column* c = column;
    for (int64_t i = 0; i < call.arrays; ++i) {
      const Array& a = call.array[i];
      Room& r = room[i];
      r.column = c, r.columns = a.columns, r.base = total, r.size = 0;
      r.slots = a.kind == jaxseq::INPUT ? steps : a.kind == jaxseq::STATE ? 2 : 1;
      r.outside = jaxseq::Outside(call, type_of<T>(), W).of(i);
      for (int64_t j = 0, first = 0; j < a.columns; ++j, ++c) {
        *c = {first, a.lengths[j], r.size, pad_of(a.lengths[j])};
        if (r.outside.data) c->at = first, c->pad = r.outside.row;
        else r.size += c->pad * (jaxseq::is_shared(a.kind) ? 1 : rows);
        first += a.lengths[j];
      }
      total += r.slots * r.size;
    }
    int64_t row = 0, weights = 0;
    for (int64_t i = 0; i < call.arrays; ++i)
      if (room[i].outside.data || call.array[i].kind == jaxseq::OUTPUT) row += call.array[i].width;
    for (int64_t i = 0; i < call.products; ++i) weights += call.product[i].w.rows * call.product[i].w.columns;
    looks_ahead = call.T * call.B * row * sizeof(T) > AHEAD_BYTES && weights >= AHEAD_WEIGHTS;
    for (int64_t i = 0; i < call.actions; ++i) {
      scratch[i] = registers;
      if (call.action[i].is_run) registers += scratch_of<T>(call.action[i].run);
    }
    rest = total, pitch = 0;
    for (int64_t i = 0; i < call.inputs; ++i)
      if (call.input[i].has_w && is_half(call.input[i].w)) pitch = most(pitch, call.input[i].width);
    for (int64_t i = 0; i < call.products; ++i)
      if (is_half(call.product[i].w)) pitch = most(pitch, call.product[i].w.rows);
    pitch = over(pitch, W) * W;
    int64_t widest = 0;
    for (int64_t i = 0; i < call.inputs; ++i) widest = most(widest, call.input[i].width);
    total += over(widest, W) * W;
    for (int64_t i = call.before, j; i < call.actions; i = j) {
      for (j = i + 1; j < call.actions && !waits(i, j); ++j) {}
      until[i] = j;
    }
    return true;
  }

  static bool is_half(const jaxseq::Matrix& w) { return ::is_half(w.data); }

  // Whether an action has to wait until some before it, from the first on, have been done
  // for all columns: one of them gives what a product reads, or the other way round.
  bool waits(int64_t first, int64_t last) const {
    for (int64_t i = first; i < last; ++i)
      if (gives(call.action[i], call.action[last]) || gives(call.action[last], call.action[i])) return true;
    return false;
  }
  static bool gives(const Action& a, const Action& to) {
    if (to.is_run || to.is_fold) return false;  // with a fold there is but one piece
    for (int64_t i = 0; i < to.multiply.places; ++i) {
      const Place& p = to.multiply.place[i];
      if (!a.is_run && !a.is_fold && a.multiply.out == p.array) return true;
      for (int64_t j = 0; a.is_run && j < a.run.instructions; ++j) {
        const int64_t d = a.run.code[5 * j + 1];
        if (d >= a.run.places) continue;
        const Place& q = a.run.place[d];
        if (q.array == p.array && q.column == p.column && q.fresh == p.fresh) return true;
      }
    }
    return false;
  }

  // Rows that lie a multiple of 4096 bytes apart would share a few lines of the cache.
  static int64_t pad_of(int64_t length) {
    const int64_t pad = over(length, W) * W;
    return pad * sizeof(T) % 4096 ? pad : pad + W;
  }

  // the elements of a column that a piece has
  static int64_t first_of(const Column& c, Piece p) { return least(c.length, over(c.length, W) * p.i / p.n * W); }
  static int64_t last_of(const Column& c, Piece p) { return first_of(c, {p.i + 1, p.n}); }

  // the columns of an array that are the results of a product
  struct Filled {
    const Room& room;
    int64_t columns;
    const int64_t* which;  // null for all
    const Column& operator[](int64_t j) const { return room.column[which ? which[j] : j]; }
  };
  Filled filled(const jaxseq::Input& a) const { return {room[a.array], room[a.array].columns, nullptr}; }
  Filled filled(const jaxseq::Product& a) const { return {room[a.array], a.columns, a.column}; }

  static int64_t vectors_of(const Filled& all) {
    int64_t n = 0;
    for (int64_t j = 0; j < all.columns; ++j) n += over(all[j].length, W);
    return n;
  }
  // the vectors of such results, and where those of each piece end
  void slots_of(const Filled& all, Slot* slot, int64_t* ends) const {
    const Slot* begin = slot;
    for (int64_t i = 0; i < pieces; ++i) {
      for (int64_t j = 0, first = 0; j < all.columns; first += all[j++].length) {
        const Column& c = all[j];
        const int64_t end = last_of(c, {i, pieces});
        for (int64_t u = first_of(c, {i, pieces}); u < end; u += W)
          *slot++ = {c.at + u, c.pad, first + u, least(W, c.length - u)};
      }
      ends[i] = slot - begin;
    }
  }

  int64_t rows_of(int64_t block) const { return least(rows, call.B - block * rows); }
  int64_t time(int64_t t) const { return call.reverse ? call.T - 1 - t : t; }
  // the number of a row of an array of the call
  int64_t at(int64_t row, int64_t time, bool batch_first) const {
    return batch_first ? row * call.T + time : time * call.B + row;
  }
  int64_t by_time(int64_t row, int64_t time) const { return time * call.B + row; }
};

}  // namespace
