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
  T* left;  // the left sides of a product, where they are not taken as they lie
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
      project(t0, steps, {}, own);
      for (int64_t t = t0; t < t0 + steps; ++t) {
        look_ahead(t, t - t0);
        reset(t);
        for (int64_t a = call.before; a < call.actions; a = L.until[a]) step({t, t - t0, a}, {}, own);
        if (call.actions == call.before) step({t, t - t0, call.actions}, {}, own);
      }
    }
    end();
  }

  // What later steps read and write of arrays of the call: the next one, and of maps of
  // inputs, which are computed for some steps at a time, those after that.
  void look_ahead(int64_t t, int64_t slot) {
    ahead.clear();
    if (!L.looks_ahead) return;
    const int64_t size = sizeof(T);
    auto add = [&](int64_t array, int64_t t, int64_t slot) {
      const jaxseq::Strided& a = L.room[array].outside;
      const Turn turn{t, slot, 0};
      if (a.data && t < call.T)
        ahead.add(at(array, false, turn), n, (is_at_end(a, turn) ? call.array[array].width : a.row) * size,
                  call.array[array].width * size);
    };
    auto rows = [&](Ref a, int64_t width, int64_t t, bool batch_first) {
      if (!a || t >= call.T) return;
      const int64_t bytes = width * jaxseq::bytes_of(a.type);
      ahead.add(a.at(L.at(row0, L.time(t), batch_first) * width).data, n, (batch_first ? call.T : 1) * bytes, bytes);
    };
    for (int64_t i = 0; i < call.inputs; ++i) {
      const auto& input = call.input[i];
      const int64_t next = input.has_w ? t + L.steps : t + 1;
      add(input.array, next, slot);
      if (!L.room[input.array].outside.data) rows(input.saved, call.array[input.array].width, next, false);
    }
    for (int64_t i = 0; i < call.products; ++i)
      if (call.array[call.product[i].array].kind == jaxseq::PRODUCT) add(call.product[i].array, t + 1, 0);
    for (int64_t i = 0; i < call.states; ++i) rows(call.state[i].saved, call.state[i].width, t + 1, false);
    for (int64_t i = 0; i < call.outputs; ++i)
      rows(call.output[i].y, call.array[call.output[i].array].width, t + 1, call.batch_first);
  }

  static int64_t rows_of_products(const Layout<T>& L) { return L.rows * L.steps; }

  void begin(const Own<T>& own) {
    for (int64_t i = 0; i < call.states; ++i) {
      const auto& s = call.state[i];
      for (int64_t r = 0; r < n; ++r)
        scatter(s.array, s.first.at((row0 + r) * s.width), r, at(s.array, 0), {});
      if (s.lost) memset((T*)s.lost + row0 * s.width, 0, n * s.width * sizeof(T));
    }
    for (int64_t i = 0; i < call.extras; ++i) {
      const Room& room = L.room[call.extra[i].array];
      for (int64_t j = 0; j < room.columns; ++j) {
        const Column& c = room.column[j];
        read(call.extra[i].data.at(c.first), memory + room.base + c.at, c.length);
      }
    }
    constants(own, 0, call.actions);
    for (int64_t i = 0; i < call.before; ++i) act(i, {}, {}, own);
  }
  // those of some actions
  void constants(const Own<T>& own, int64_t first, int64_t end) const {
    for (int64_t i = first; i < end; ++i)
      if (call.action[i].is_run) fill<T>(call.action[i].run, own.registers + L.scratch[i]);
  }

  void end() {
    for (int64_t i = 0; i < call.states; ++i) {
      const auto& s = call.state[i];
      for (int64_t r = 0; r < n; ++r)
        gather(s.array, at(s.array, call.T % 2), r, s.last.at((row0 + r) * s.width), {});
    }
  }

  // The maps of some steps' inputs.
  void project(int64_t t0, int64_t steps, Piece piece, const Own<T>& own) {
    for (int64_t i = 0; i < call.inputs; ++i) {
      const auto& input = call.input[i];
      const void* outside = L.room[input.array].outside.data;
      if (outside && outside == input.x.data) continue;
      Row<T>* next = own.row;
      T* room = own.left;
      for (int64_t t = 0; t < steps; ++t) {
        T* to = at(input.array, false, {t0 + t, t, 0});
        for (int64_t r = 0; r < n; ++r) {
          const int64_t time = L.time(t0 + t);
          Ref x = row_of(input, row0 + r, t0 + t);
          if (!valid(r, time)) x.data = memory + L.rest;
          if (!input.has_w) {
            scatter(input.array, x, r, to, piece);
            continue;
          }
          *next++ = {left(weights.input[i], x, input.width, room), to, r};
          room += L.pitch;
        }
      }
      if (input.has_w) {
        const Packed<T>& P = weights.input[i];
        product<T>(P, piece.i, 0, P.K, steps * n, own.row, input.b ? BIAS : ZERO, weights.bias[i], false, &ahead);
      }
      if (input.saved && !outside)
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
    const int64_t t = turn.t, time = L.time(t), last = turn.first < call.actions ? L.until[turn.first] : call.actions;
    for (int64_t i = 0; turn.first == call.before && i < call.states; ++i) {
      const auto& s = call.state[i];
      if (s.saved) put(s.array, at(s.array, t % 2), s.saved, time, piece);
    }
    for (int64_t i = turn.first; i < last; ++i) act(i, turn, piece, own);
    if (last < call.actions) return;
    for (int64_t i = 0; i < call.products; ++i) {
      const auto& p = call.product[i];
      if (p.saved && !L.room[p.array].outside.data)
        put(p.array, at(p.array, false, turn), p.saved, time, piece);
    }
    finish(turn, time, piece);
  }

 private:
  void act(int64_t i, const Turn& turn, Piece piece, const Own<T>& own) {
    const Action& a = call.action[i];
    if (a.is_run) pointwise(a.run, own.registers + L.scratch[i], turn, piece);
    else if (a.is_fold) fold(a.fold, turn);
    else multiply(a.multiply, own, turn, piece);
  }

  const Layout<T>& L;
  const Call& call;
  const Weights<T>& weights;
  T* memory;
  const int64_t row0, n;
  Ahead ahead;

  T* at(int64_t array, int64_t slot) const {
    return memory + L.room[array].base + slot * L.room[array].size;
  }
  // what a step reads of an input
  Ref row_of(const jaxseq::Input& a, int64_t row, int64_t t) const {
    if (a.end && ++t == call.T) return a.end.at(row * a.width);
    return a.x.at(L.at(row, L.time(t), a.batch_first) * a.width);
  }
  // a piece of a row of an array from or to one whose columns lie side by side
  void gather(int64_t array, const T* from, int64_t r, Ref to, Piece piece) const {
    const Room& room = L.room[array];
    for (int64_t j = 0; j < room.columns; ++j) {
      const Column& c = room.column[j];
      const int64_t u = L.first_of(c, piece);
      write(from + c.at + r * c.pad + u, to.at(c.first + u), L.last_of(c, piece) - u);
    }
  }
  void scatter(int64_t array, Ref from, int64_t r, T* to, Piece piece) const {
    const Room& room = L.room[array];
    for (int64_t j = 0; j < room.columns; ++j) {
      const Column& c = room.column[j];
      const int64_t u = L.first_of(c, piece);
      read(from.at(c.first + u), to + c.at + r * c.pad + u, L.last_of(c, piece) - u);
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
    if (s.reset == jaxseq::STARTED) return scatter(s.array, s.start.at(at), r, state, {});
    if (s.reset == jaxseq::LOST) add(s.array, state, r, (T*)s.lost + at);
    clear(s.array, r, state);
  }
  // all rows of an array to those of one step, (T, B, width)
  void put(int64_t array, const T* from, Ref to, int64_t time, Piece piece) const {
    const int64_t width = call.array[array].width, first = L.by_time(row0, time);
    for (int64_t r = 0; r < n; ++r) gather(array, from, r, to.at((first + r) * width), piece);
  }

  bool valid(int64_t r, int64_t time) const {
    return !call.valid || call.valid[L.by_time(row0 + r, time)];
  }

  int64_t slot_of(int64_t array, bool fresh, const Turn& turn) const {
    const int64_t kind = call.array[array].kind;
    return kind == jaxseq::STATE ? (turn.t + fresh) % 2 : kind == jaxseq::INPUT ? turn.slot : 0;
  }
  T* at(int64_t array, bool fresh, const Turn& turn) const {
    const jaxseq::Strided& outside = L.room[array].outside;
    if (is_at_end(outside, turn)) return (T*)outside.end + row0 * call.array[array].width;
    const int64_t time = L.time(turn.t + (outside.end != nullptr));
    if (outside.data) return (T*)outside.data + row0 * outside.row + time * outside.step;
    return at(array, slot_of(array, fresh, turn));
  }
  T* at(const Place& p, const Turn& turn) const {
    return at(p.array, p.fresh, turn) + L.room[p.array].column[p.column].at;
  }
  bool is_at_end(const jaxseq::Strided& a, const Turn& turn) const { return a.end && turn.t + 1 == call.T; }
  // how far apart rows are; those of an extra, say, are all the same
  int64_t pitch_of(const Place& p, const Turn& turn) const {
    const Array& a = call.array[p.array];
    const Room& room = L.room[p.array];
    if (jaxseq::is_shared(a.kind)) return 0;
    return is_at_end(room.outside, turn) ? a.width : room.column[p.column].pad;
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
      const bool is_there = L.room[y.array].outside.data;
      if (is_there && !call.valid) continue;
      const T* from = at(y.array, true, turn);
      for (int64_t r = 0; r < n; ++r) {
        const Ref to = y.y.at(L.at(row0 + r, time, call.batch_first) * width);
        if (!valid(r, time)) blank(L.room[y.array], to, piece);
        else if (!is_there) gather(y.array, from, r, to, piece);
      }
    }
  }
  void blank(const Room& room, Ref to, Piece piece) const {
    for (int64_t j = 0; j < room.columns; ++j) {
      const Column& c = room.column[j];
      const int64_t u = L.first_of(c, piece);
      memset(to.at(c.first + u).data, 0, (L.last_of(c, piece) - u) * jaxseq::bytes_of(to.type));
    }
  }

  void pointwise(const Run& run, T* registers, const Turn& turn, Piece piece) {
    Operand<T> io[MOST_REGISTERS];
    const Column c{0, run.length};
    const int64_t u = L.first_of(c, piece), last = L.last_of(c, piece);
    for (int64_t i = 0; i < run.places; ++i) {
      const bool one = column_of(run.place[i]).length < run.length;
      io[i] = {at(run.place[i], turn) + (one ? 0 : u), pitch_of(run.place[i], turn), one};
    }
    if (u < last) execute<T>(run, io, run.is_shared ? 1 : n, over(last - u, L.W) * L.W, registers);
  }

  template <int64_t op = 0>
  void fold(const jaxseq::Fold& f, const Turn& turn) {
    if constexpr (op + 1 < FOLDS)
      if (f.op != op) return fold<op + 1>(f, turn);
    const Column& to = L.room[f.out].column[0];
    for (int64_t r = 0; r < (f.is_shared ? 1 : n); ++r) {
      V<T> y = everywhere<T>(start_of<T>(op));
      for (int64_t i = 0; i < f.places; ++i) {
        const Place& p = f.place[i];
        y = folded<op, T>(y, at(p, turn) + r * pitch_of(p, turn), column_of(p).length);
      }
      store<T>(at(f.out, 0) + to.at + r * to.pad, across<op, T>(y));
    }
  }
  const Column& column_of(const Place& p) const { return L.room[p.array].column[p.column]; }

  // What a matrix of 16 bits is given, all of it side by side.
  void multiply_rounded(const jaxseq::Multiply& m, const Own<T>& own, const Turn& turn, Piece piece) {
    const Packed<T>& P = weights.product[m.matrix];
    T* to = at(m.out, true, turn);
    const Ref whole{own.left, P.pairs ? P.type : type_of<T>()};
    for (int64_t r = 0; r < n; ++r) {
      const Ref row = whole.at(r * L.pitch * (P.pairs ? 2 : 1));
      int64_t k = 0;
      for (int64_t i = 0; i < m.places; ++i) {
        const Place& p = m.place[i];
        const int64_t length = L.room[p.array].column[p.column].length;
        const T* a = at(p, turn) + r * pitch_of(p, turn);
        if (P.pairs) write(a, row.at(k), length);
        else round_to(P.type, a, (T*)row + k, length);
        k += length;
      }
      if (P.pairs) memset(row.at(k).data, 0, k % 2 * 2);
      own.row[r] = {(const T*)row, to, r};
    }
    product<T>(P, piece.i, 0, P.K, n, own.row, m.adds ? ADD : ZERO, nullptr, turn.t % 2, &ahead);
  }

  void multiply(const jaxseq::Multiply& m, const Own<T>& own, const Turn& turn, Piece piece) {
    const Packed<T>& P = weights.product[m.matrix];
    if (P.type != type_of<T>()) return multiply_rounded(m, own, turn, piece);
    Row<T>* row = own.row;
    T* to = at(m.out, true, turn);
    for (int64_t i = 0, k = 0; i < m.places; ++i) {
      const Place& p = m.place[i];
      const Column& c = L.room[p.array].column[p.column];
      const T* a = at(p, turn);
      for (int64_t r = 0; r < n; ++r) row[r] = {a + r * pitch_of(p, turn), to, r};
      product<T>(P, piece.i, k, c.length, n, row, m.adds || i ? ADD : ZERO, nullptr, turn.t % 2, &ahead);
      k += c.length;
    }
  }
};

}  // namespace
