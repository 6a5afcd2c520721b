// A block of rows through all steps, all of it or a piece of its columns.
#pragma once
#include "fold.h"
#include "layout.h"

namespace {

// What all blocks share: the packed matrices, with their biases.
template <class T>
struct Weights {
  Packed<T>* input;
  Packed<T>* product;
  const T** bias;  // of each input, by vectors
};

// What a thread has for itself: the registers of runs, and the rows of a product.
template <class T>
struct Own {
  T* registers;
  Row<T>* row;
};

template <class T>
class Block {
 public:
  Block(const Layout<T>& layout, const Weights<T>& weights, int64_t number, T* memory)
      : L(layout), call(layout.call), weights(weights), memory(memory), row0(number * layout.rows),
        n(layout.rows_of(number)) {}

  void run(const Own<T>& own) {
    begin(own);
    for (int64_t t0 = 0; t0 < call.T; t0 += L.steps) {
      const int64_t steps = least(L.steps, call.T - t0);
      project(t0, steps, {}, own.row);
      for (int64_t t = t0; t < t0 + steps; ++t) {
        reset(t);
        for (int64_t a = 0; a < call.actions; a = L.until[a]) step({t, t - t0, a}, {}, own);
        if (call.actions == 0) step({t, t - t0, 0}, {}, own);
      }
    }
    end();
  }

  static int64_t rows_of_products(const Layout<T>& L) { return L.rows * L.steps; }

  void begin(const Own<T>& own) {
    for (int64_t i = 0; i < call.states; ++i) {
      const auto& s = call.state[i];
      for (int64_t r = 0; r < n; ++r)
        scatter(s.array, (const T*)s.first + (row0 + r) * s.width, r, at(s.array, 0), {});
      if (s.lost) memset((T*)s.lost + row0 * s.width, 0, n * s.width * sizeof(T));
    }
    for (int64_t i = 0; i < call.extras; ++i) {
      const Room& room = L.room[call.extra[i].array];
      for (int64_t j = 0; j < room.columns; ++j) {
        const Column& c = room.column[j];
        for (int64_t r = 0; r < rows_of_strip<T>(c.pad); ++r)
          memcpy(memory + room.base + c.at + r * c.pad, (const T*)call.extra[i].data + c.first,
                 c.length * sizeof(T));
      }
    }
    constants(own);
  }
  void constants(const Own<T>& own) const {
    for (int64_t i = 0; i < call.actions; ++i)
      if (call.action[i].is_run) fill<T>(call.action[i].run, own.registers + L.scratch[i]);
  }

  void end() {
    for (int64_t i = 0; i < call.states; ++i) {
      const auto& s = call.state[i];
      for (int64_t r = 0; r < n; ++r)
        gather(s.array, at(s.array, call.T % 2), r, (T*)s.last + (row0 + r) * s.width, {});
    }
  }

  // The maps of some steps' inputs.
  void project(int64_t t0, int64_t steps, Piece piece, Row<T>* row) {
    for (int64_t i = 0; i < call.inputs; ++i) {
      const auto& input = call.input[i];
      Row<T>* next = row;
      for (int64_t t = 0; t < steps; ++t)
        for (int64_t r = 0; r < n; ++r) {
          const int64_t time = L.time(t0 + t);
          const T* x = (const T*)input.x + L.at(row0 + r, time) * input.width;
          *next++ = {valid(r, time) ? x : memory + L.rest, at(input.array, t), r};
        }
      if (input.has_w) {
        const Packed<T>& P = weights.input[i];
        product<T>(P, piece.i, 0, P.K, steps * n, row, input.b ? BIAS : ZERO, weights.bias[i]);
      } else {
        for (Row<T>* each = row; each < next; ++each) scatter(input.array, each->a, each->row, each->c, piece);
      }
      if (input.saved)
        for (int64_t t = 0; t < steps; ++t)
          put(input.array, at(input.array, t), input.saved, L.time(t0 + t), piece);
    }
  }

  void reset(int64_t t) {
    for (int64_t i = 0; call.keep && i < call.states; ++i)
      for (int64_t r = 0; r < n; ++r)
        if (!call.keep[L.by_time(row0 + r, L.time(t))])
          reset(call.state[i], r, at(call.state[i].array, t % 2));
  }

  // The actions of a step from the first one on, as many as need not wait.
  struct Turn {
    int64_t t, slot, first;
  };
  void step(const Turn& turn, Piece piece, const Own<T>& own) {
    const int64_t t = turn.t, time = L.time(t), last = call.actions ? L.until[turn.first] : 0;
    for (int64_t i = 0; turn.first == 0 && i < call.states; ++i) {
      const auto& s = call.state[i];
      if (s.saved) put(s.array, at(s.array, t % 2), s.saved, time, piece);
    }
    for (int64_t i = turn.first; i < last; ++i) {
      const Action& a = call.action[i];
      if (a.is_run) pointwise(a.run, own.registers + L.scratch[i], turn, piece);
      else if (a.is_fold) fold(a.fold, turn);
      else multiply(a.multiply, own.row, turn, piece);
    }
    if (last < call.actions) return;
    for (int64_t i = 0; i < call.products; ++i) {
      const auto& p = call.product[i];
      if (p.saved) put(p.array, at(p.array, slot_of(p.array, false, turn)), p.saved, time, piece);
    }
    finish(turn, time, piece);
  }

 private:
  const Layout<T>& L;
  const Call& call;
  const Weights<T>& weights;
  T* memory;
  const int64_t row0, n;

  T* at(int64_t array, int64_t slot) const {
    return memory + L.room[array].base + slot * L.room[array].size;
  }
  // a piece of a row of an array from or to one whose columns lie side by side
  void gather(int64_t array, const T* from, int64_t r, T* to, Piece piece) const {
    const Room& room = L.room[array];
    for (int64_t j = 0; j < room.columns; ++j) {
      const Column& c = room.column[j];
      const int64_t u = L.first_of(c, piece);
      memcpy(to + c.first + u, from + c.at + r * c.pad + u, (L.last_of(c, piece) - u) * sizeof(T));
    }
  }
  void scatter(int64_t array, const T* from, int64_t r, T* to, Piece piece) const {
    const Room& room = L.room[array];
    for (int64_t j = 0; j < room.columns; ++j) {
      const Column& c = room.column[j];
      const int64_t u = L.first_of(c, piece);
      memcpy(to + c.at + r * c.pad + u, from + c.first + u, (L.last_of(c, piece) - u) * sizeof(T));
    }
  }
  void clear(int64_t array, int64_t r, T* to) const {
    const Room& room = L.room[array];
    for (int64_t j = 0; j < room.columns; ++j)
      memset(to + room.column[j].at + r * room.column[j].pad, 0, room.column[j].length * sizeof(T));
  }
  void add(int64_t array, const T* from, int64_t r, T* to) const {
    const Room& room = L.room[array];
    for (int64_t j = 0; j < room.columns; ++j) {
      const Column& c = room.column[j];
      for (int64_t k = 0; k < c.length; ++k) to[c.first + k] += from[c.at + r * c.pad + k];
    }
  }
  void reset(const jaxseq::State& s, int64_t r, T* state) const {
    if (s.reset == jaxseq::KEPT) return;
    const int64_t at = (row0 + r) * s.width;
    if (s.reset == jaxseq::STARTED) return scatter(s.array, (const T*)s.start + at, r, state, {});
    if (s.reset == jaxseq::LOST) add(s.array, state, r, (T*)s.lost + at);
    clear(s.array, r, state);
  }
  // all rows of an array to those of one step, (T, B, width)
  void put(int64_t array, const T* from, void* to, int64_t time, Piece piece) const {
    T* row = (T*)to + L.by_time(row0, time) * call.array[array].width;
    for (int64_t r = 0; r < n; ++r, row += call.array[array].width) gather(array, from, r, row, piece);
  }

  bool valid(int64_t r, int64_t time) const {
    return !call.valid || call.valid[L.by_time(row0 + r, time)];
  }

  int64_t slot_of(int64_t array, bool fresh, const Turn& turn) const {
    const int64_t kind = call.array[array].kind;
    return kind == jaxseq::STATE ? (turn.t + fresh) % 2 : kind == jaxseq::INPUT ? turn.slot : 0;
  }
  T* at(const Place& p, const Turn& turn) const {
    return at(p.array, slot_of(p.array, p.fresh, turn)) + L.room[p.array].column[p.column].at;
  }

  // The state of a row that is not valid stands still, and its outputs are zero.
  void finish(const Turn& turn, int64_t time, Piece piece) {
    const int64_t t = turn.t;
    for (int64_t r = 0; call.valid && r < n; ++r) {
      if (valid(r, time)) continue;
      for (int64_t i = 0; i < call.states; ++i) {
        const int64_t a = call.state[i].array;
        const Room& room = L.room[a];
        for (int64_t j = 0; j < room.columns; ++j) {
          const Column& c = room.column[j];
          const int64_t u = L.first_of(c, piece), from = c.at + r * c.pad + u;
          memcpy(at(a, (t + 1) % 2) + from, at(a, t % 2) + from, (L.last_of(c, piece) - u) * sizeof(T));
        }
      }
    }
    for (int64_t i = 0; i < call.outputs; ++i) {
      const auto& y = call.output[i];
      const int64_t width = call.array[y.array].width;
      const T* from = at(y.array, slot_of(y.array, true, turn));
      for (int64_t r = 0; r < n; ++r) {
        T* to = (T*)y.y + L.at(row0 + r, time) * width;
        if (valid(r, time)) gather(y.array, from, r, to, piece);
        else blank(L.room[y.array], to, piece);
      }
    }
  }
  void blank(const Room& room, T* to, Piece piece) const {
    for (int64_t j = 0; j < room.columns; ++j) {
      const Column& c = room.column[j];
      const int64_t u = L.first_of(c, piece);
      memset(to + c.first + u, 0, (L.last_of(c, piece) - u) * sizeof(T));
    }
  }

  void pointwise(const Run& run, T* registers, const Turn& turn, Piece piece) {
    Operand<T> io[MOST_REGISTERS];
    const Column& c = L.room[run.place[0].array].column[run.place[0].column];
    const int64_t u = L.first_of(c, piece), last = L.last_of(c, piece), pad = c.pad;
    for (int64_t i = 0; i < run.places; ++i)
      io[i] = {at(run.place[i], turn) + u, call.array[run.place[i].array].kind == jaxseq::EXTRA};
    if (piece.n == 1)
      execute<T>(run, io, n, pad, registers);
    else
      for (int64_t r = 0; r < n && u < last; ++r) {
        execute<T>(run, io, 1, over(last - u, L.W) * L.W, registers);
        for (int64_t i = 0; i < run.places; ++i) io[i].p += io[i].same ? 0 : pad;
      }
  }

  void fold(const jaxseq::Fold& f, const Turn& turn) {
    for (int64_t r = 0; r < n; ++r) {
      T x = start_of<T>(f.op);
      for (int64_t i = 0; i < f.places; ++i) {
        const Place& p = f.place[i];
        const Column& c = L.room[p.array].column[p.column];
        const bool same = call.array[p.array].kind == jaxseq::EXTRA;
        x = folded<T>(f.op, x, at(p, turn) + (same ? 0 : r * c.pad), c.length);
      }
      const Room& to = L.room[f.out];
      for (int64_t j = 0; j < to.columns; ++j)
        spread<T>(x, at(f.out, 0) + to.column[j].at + r * to.column[j].pad, to.column[j].pad);
    }
  }

  void multiply(const jaxseq::Multiply& m, Row<T>* row, const Turn& turn, Piece piece) {
    const Packed<T>& P = weights.product[m.matrix];
    T* to = at(m.out, slot_of(m.out, true, turn));
    for (int64_t i = 0, k = 0; i < m.places; ++i) {
      const Place& p = m.place[i];
      const Column& c = L.room[p.array].column[p.column];
      const int64_t pad = call.array[p.array].kind == jaxseq::EXTRA ? 0 : c.pad;
      const T* a = at(p, turn);
      for (int64_t r = 0; r < n; ++r) row[r] = {a + r * pad, to, r};
      product<T>(P, piece.i, k, c.length, n, row, m.adds || i ? ADD : ZERO);
      k += c.length;
    }
  }
};

}  // namespace
