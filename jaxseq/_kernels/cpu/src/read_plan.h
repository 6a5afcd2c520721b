// Reads the numbers that say what a call is, the plan, and checks them against its arrays:
// what a kernel is given has been checked in full.
#pragma once
#include <utility>

#include "read_actions.h"

namespace jaxseq {

class Plan {
 public:
  Call call{};

  Plan(Numbers numbers, Instructions instructions, std::vector<Given> arguments,
       std::vector<Given> results, const std::vector<Given>& masks)
      : n(numbers), instructions(instructions), in(std::move(arguments)), out(std::move(results)) {
    Call& c = call;
    c.batch_first = n.below(2), c.reverse = n.below(2), c.rows = n.below(1 << 20);
    require(c.rows > 0, "a block has no rows");
    read_arrays();
    c.inputs = n.below(256), c.products = n.below(256), c.extras = n.below(256);
    c.states = n.below(256), c.outputs = n.below(256);
    require(c.inputs > 0 && c.states > 0, "there is no input, or no state");
    read_inputs();
    read_products();
    read_extras();
    read_states();
    read_outputs();
    check_widths();
    read_actions();
    require(n.p == n.end, "the plan is too long");
    in.end(), out.end();
    for (auto& m : masks)
      require(m.rank == 2 && m.at(0) == c.T && m.at(1) == c.B, "a mask is not (T, B)");
  }

 private:
  Numbers n;
  Instructions instructions;
  Taken in, out;
  std::vector<Array> arrays;
  std::vector<Input> inputs;
  std::vector<State> states;
  std::vector<Extra> extras;
  std::vector<Output> outputs;
  std::vector<Product> products;
  std::vector<Action> actions;
  std::vector<std::vector<Place>> places;

  void read_arrays() {
    arrays.resize(n.below(512));
    int64_t columns = 0;
    for (Array& a : arrays) {
      a.kind = n.below(7), a.columns = n.below(MOST_COLUMNS), a.width = 0;
      a.lengths = n.some(a.columns);
      for (int64_t i = 0; i < a.columns; ++i) {
        require(a.lengths[i] > 0 && a.lengths[i] < 1 << 24, "a column has no elements, or too many");
        a.width += a.lengths[i];
      }
      require((columns += a.columns) < MOST_COLUMNS, "there are too many columns");
    }
    call.arrays = arrays.size(), call.array = arrays.data();
  }

  // Arrays are as wide as what is given and taken, but for those in between, so that no
  // plan asks for much more memory than a call has already.
  void check_widths() {
    int64_t given = 0, between = 0, others = 0;
    for (const Array& a : arrays) (a.kind == BETWEEN || a.kind == SHARED ? between : others) += a.width;
    for (const auto& a : inputs) given += arrays[a.array].width;
    for (const auto& a : products) given += arrays[a.array].width;
    for (const auto& a : extras) given += arrays[a.array].width;
    for (const auto& a : states) given += a.width;
    for (const auto& a : outputs) given += arrays[a.array].width;
    require(others <= given && others < 1 << 28 && between <= 256 * others, "the arrays are too wide");
    int64_t n = 0;  // bytes of all steps of all rows
    require(!__builtin_mul_overflow(call.B, call.T, &n) && !__builtin_mul_overflow(n, 8 * given, &n),
            "the arrays are too large");
  }

  int64_t array(int64_t kind) {
    const int64_t i = n.below(arrays.size());
    require(arrays[i].kind == kind, "an array is of another kind");
    return i;
  }

  void read_inputs() {
    for (int64_t i = 0; i < call.inputs; ++i) {
      Input a{};
      a.array = array(INPUT);
      const int64_t width = arrays[a.array].width;
      a.batch_first = n.below(2);
      const bool ahead = n.below(2);
      a.has_w = n.below(2);
      const bool has_b = n.below(2), saved = n.below(2);
      const Given& x = in.next();
      require(x.rank == 3, "an input is not of rank 3");
      if (i == 0) call.B = x.at(!a.batch_first), call.T = x.at(a.batch_first);
      require(x.at(!a.batch_first) == call.B && x.at(a.batch_first) == call.T,
              "an input has another number of rows or steps");
      a.x = x.data, a.width = x.at(2);
      if (ahead) {
        a.end = in.next({call.B, a.width});
        require(a.end.type == a.x.type, "what is read at the last step has another type");
      }
      if (a.has_w) {
        a.w = {in.next({a.width, width}), a.width, width, false};
        const bool wide = bytes_of(a.x.type) > 2;
        require(wide || a.x.type == a.w.data.type, "an input and its matrix differ in type");
      }
      else require(a.width == width, "an input is not as wide as the plan says");
      if (has_b) require(a.has_w, "a bias without a matrix"), a.b = in.next({width});
      if (saved) a.saved = out.next({call.T, call.B, width});
      inputs.push_back(a);
    }
    call.input = inputs.data();
  }

  void read_products() {
    for (int64_t i = 0; i < call.products; ++i) {
      Product a{};
      a.array = n.below(arrays.size());
      require(arrays[a.array].kind == PRODUCT || arrays[a.array].kind == INPUT, "no place for a product");
      const bool saved = n.below(2), transposed = n.below(2);
      const Given& w = in.next();
      require(w.rank == 3 && w.at(0) > 0 && w.at(0) < 256, "a matrix is not of rank 3, or in too many blocks");
      require(w.at(1) < 1 << 24 && w.at(2) < 1 << 24, "a matrix is too large");
      if (saved) a.saved = out.next({call.T, call.B, arrays[a.array].width});
      for (int64_t j = 0; j < w.at(0); ++j, a.saved = {}) {
        a.columns = n.below(MOST_COLUMNS), a.column = n.some(a.columns);
        int64_t width = 0;
        for (int64_t k = 0; k < a.columns; ++k) {
          const int64_t c = a.column[k];
          require(c >= 0 && c < arrays[a.array].columns, "a number of the plan is out of range");
          width += arrays[a.array].lengths[c];
        }
        const int64_t rows = w.at(transposed ? 2 : 1);
        require(w.at(transposed ? 1 : 2) == width, "a matrix has another shape than the plan says");
        a.w = {w.data.at(j * rows * width), rows, width, transposed};
        products.push_back(a);
      }
    }
    call.products = products.size(), call.product = products.data();
  }

  void read_extras() {
    for (int64_t i = 0; i < call.extras; ++i) {
      Extra a{};
      a.array = array(EXTRA);
      a.data = in.next({arrays[a.array].width});
      extras.push_back(a);
    }
    call.extra = extras.data();
  }

  void read_states() {
    const int64_t B = call.B, T = call.T;
    for (int64_t i = 0; i < call.states; ++i) {
      State a{};
      a.array = array(STATE);
      a.reset = n.below(4);
      const bool saved = n.below(2);
      a.width = arrays[a.array].width;
      a.first = in.next({B, a.width});
      if (a.reset == STARTED) a.start = in.next({B, a.width});
      a.last = out.next({B, a.width});
      if (a.reset == LOST) {
        a.lost = out.next({B, a.width});
        require(a.lost.type == FLOAT32 || a.lost.type == FLOAT64, "sums have 16 bits");
      }
      if (saved) a.saved = out.next({T, B, a.width});
      states.push_back(a);
    }
    call.state = states.data();
  }

  void read_outputs() {
    const int64_t B = call.B, T = call.T;
    for (int64_t i = 0; i < call.outputs; ++i) {
      Output a{};
      a.array = n.below(arrays.size());
      require(arrays[a.array].kind == OUTPUT || arrays[a.array].kind == STATE, "no place for an output");
      const int64_t width = arrays[a.array].width;
      a.y = call.batch_first ? out.next({B, T, width}) : out.next({T, B, width});
      outputs.push_back(a);
    }
    call.output = outputs.data();
  }

  void read_actions() {
    ActionReader reader{n, instructions, arrays, products};
    const int64_t number = n.below(1024);
    call.before = n.below(number + 1);
    reader.read(number, call.before);
    actions = std::move(reader.actions), places = std::move(reader.places);
    call.actions = actions.size(), call.action = actions.data();
  }
};

}  // namespace jaxseq
