// Which arrays of a block need no memory of its own: their rows are read and written where
// they lie in an array of the call.
#pragma once
#include "plan.h"

namespace jaxseq {

// Rows of an array of the call: how far apart rows are, and steps. None if `data` is null.
// If `end` is not, each step has the rows of the next, and the last one has these, which
// lie side by side.
struct Strided {
  void* data;
  int64_t row, step;
  void* end;
};

class Outside {
 public:
  Outside(const Call& call, Type type, int64_t W) : call(call), type(type), W(W) {}

  // Where the rows of an array of a step are.
  Strided of(int64_t array) const {
    const Array& a = call.array[array];
    for (int64_t j = 0; j < a.columns; ++j)
      if (a.lengths[j] % W) return {};  // whole vectors are read and written
    switch (a.kind) {
      case INPUT: return of_input(array);
      case OUTPUT: return strided(of_output(array), array, call.batch_first);
      case PRODUCT: return saved(array);
      default: return {};
    }
  }

 private:
  const Call& call;
  const Type type;  // of what is computed
  const int64_t W;

  // Null for what has another type.
  void* as_it_is(Ref a) const { return a.type == type ? a.data : nullptr; }

  Strided strided(void* data, int64_t array, bool batch_first, void* end = nullptr) const {
    const int64_t width = call.array[array].width;
    return {data, batch_first ? call.T * width : width, batch_first ? width : call.B * width, end};
  }

  Strided saved(int64_t array) const {
    void* found = nullptr;
    int64_t number = 0;
    for (int64_t i = 0; i < call.products; ++i)
      if (call.product[i].array == array) found = as_it_is(call.product[i].saved), ++number;
    return strided(number == 1 ? found : nullptr, array, false);
  }

  Strided of_input(int64_t array) const {
    const Input* found = nullptr;
    for (int64_t i = 0; i < call.inputs; ++i)
      if (call.input[i].array == array) {
        if (found) return {};
        found = &call.input[i];
      }
    bool is_sum = false;
    for (int64_t i = 0; i < call.products; ++i) is_sum |= call.product[i].array == array;
    if (!found || (is_sum && found->saved)) return {};
    if (is_sum) return saved(array);
    if (found->has_w) return strided(as_it_is(found->saved), array, false);
    for (int64_t i = 0; i < call.outputs; ++i)
      if (call.output[i].y.data == found->x.data &&
          (found->end || found->batch_first != call.batch_first || !is_like(call.output[i].array, array)))
        return {};
    // nothing writes to it
    return strided(as_it_is(found->x), array, found->batch_first, as_it_is(found->end));
  }

  void* of_output(int64_t array) const {
    void* found = nullptr;
    for (int64_t i = 0; i < call.outputs; ++i)
      if (call.output[i].array == array) {
        if (found) return nullptr;
        found = as_it_is(call.output[i].y);
      }
    // it may have the place of an input
    for (int64_t i = 0; found && i < call.inputs; ++i)
      if (call.input[i].x.data == found && (call.input[i].has_w || call.input[i].end || call.input[i].batch_first != call.batch_first ||
                                            is_read_late(call.input[i].array, array)))
        return nullptr;
    return found;
  }

  bool is_like(int64_t a, int64_t b) const {
    const Array &x = call.array[a], &y = call.array[b];
    if (x.kind != OUTPUT && y.kind != OUTPUT) return false;
    bool is = x.columns == y.columns;
    for (int64_t j = 0; is && j < x.columns; ++j) is = x.lengths[j] == y.lengths[j];
    return is;
  }

  // Whether a step reads a column of an input when that of an output has been written.
  bool is_read_late(int64_t input, int64_t output) const {
    if (!is_like(input, output)) return true;
    for (int64_t j = 0; j < call.array[input].columns; ++j) {
      bool written = false;
      auto reads = [&](const Place& p) { return written && p.array == input && p.column == j; };
      for (int64_t i = 0; i < call.actions; ++i) {
        const Action& a = call.action[i];
        if (!a.is_run) {
          const Place* place = a.is_fold ? a.fold.place : a.multiply.place;
          for (int64_t k = 0; k < (a.is_fold ? a.fold.places : a.multiply.places); ++k)
            if (reads(place[k])) return true;
          continue;
        }
        for (const int32_t* c = a.run.code; c < a.run.code + 5 * a.run.instructions; c += 5) {
          for (int k = 2; k < 5; ++k)
            if (c[k] < a.run.places && reads(a.run.place[c[k]])) return true;
          if (c[1] >= a.run.places) continue;
          const Place& to = a.run.place[c[1]];
          written |= to.array == output && to.column == j;
        }
      }
    }
    return false;
  }
};

}  // namespace jaxseq
