// Reads the numbers that say what a call is, and checks it against the arrays: what a
// kernel is given has been checked in full.
#pragma once
#include <deque>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "plan.h"

namespace jaxseq {

constexpr int64_t MOST_COLUMNS = 4096, MOST_REGISTERS_IN_ALL = 256;

#define OP(name, value) +1
constexpr int64_t OPERATIONS = 0
#include "ops.h"
    ;
#undef OP

inline void require(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(std::string("jaxseq: ") + what);
}

struct Numbers {
  const int64_t *p, *end;
  int64_t next() {
    require(p < end, "the plan ends too early");
    return *p++;
  }
  int64_t below(int64_t n) {
    const int64_t i = next();
    require(i >= 0 && i < n, "a number of the plan is out of range");
    return i;
  }
  const int64_t* some(int64_t n) {
    require(n >= 0 && n <= end - p, "the plan ends too early");
    p += n;
    return p - n;
  }
};

// An array of the program, whatever its type.
struct Given {
  const int64_t* sizes;
  int64_t rank;
  Ref data;
  int64_t at(int64_t i) const { return sizes[i]; }
};

// Takes arguments or results one by one, and checks their shapes.
class Taken {
 public:
  explicit Taken(std::vector<Given> all) : all_(std::move(all)) {}
  Ref next(std::initializer_list<int64_t> sizes) {
    const Given& g = next();
    bool ok = g.rank == int64_t(sizes.size());
    for (int64_t i = 0; ok && i < g.rank; ++i) ok = g.at(i) == sizes.begin()[i];
    require(ok, "an array has another shape than the plan says");
    return g.data;
  }
  const Given& next() {
    require(next_ < all_.size(), "there are too few arrays");
    return all_[next_++];
  }
  void end() const { require(next_ == all_.size(), "there are too many arrays"); }

 private:
  std::vector<Given> all_;
  size_t next_ = 0;
};

class Plan {
 public:
  Call call{};

  Plan(const int64_t* plan, int64_t size, const int32_t* code, int64_t codes, const double* values,
       int64_t constants, std::vector<Given> arguments, std::vector<Given> results,
       std::vector<Given> masks)
      : n{plan, plan + size}, code(code), codes(codes), value(values), constants(constants),
        in(std::move(arguments)), out(std::move(results)) {
    Call& c = call;
    c.batch_first = n.below(2), c.reverse = n.below(2), c.rows = n.below(1 << 20);
    require(c.rows > 0, "a block has no rows");
    read_arrays();
    c.inputs = n.below(256), c.products = n.below(256), c.extras = n.below(256);
    c.states = n.below(256), c.outputs = n.below(256);
    require(c.inputs > 0 && c.states > 0, "there is no input, or no state");
    read_inputs();
    read_others();
    check_widths();
    read_actions();
    require(n.p == n.end, "the plan is too long");
    in.end(), out.end();
    for (auto& m : masks)
      require(m.rank == 2 && m.at(0) == c.T && m.at(1) == c.B, "a mask is not (T, B)");
  }

 private:
  Numbers n;
  const int32_t* code;
  int64_t codes;
  const double* value;
  int64_t constants;
  Taken in, out;
  std::vector<Array> arrays;
  std::vector<Input> inputs;
  std::vector<State> states;
  std::vector<Extra> extras;
  std::vector<Output> outputs;
  std::vector<Product> products;
  std::vector<Action> actions;
  std::deque<std::vector<Place>> places;

  void read_arrays() {
    arrays.resize(n.below(512));
    int64_t columns = 0;
    for (Array& a : arrays) {
      a.kind = n.below(6), a.columns = n.below(MOST_COLUMNS), a.width = 0;
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
    for (const Array& a : arrays) (a.kind == BETWEEN ? between : others) += a.width;
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

  void read_others() {
    const int64_t B = call.B, T = call.T;
    for (int64_t i = 0; i < call.products; ++i) {
      Product a{};
      a.array = n.below(arrays.size());
      require(arrays[a.array].kind == PRODUCT || arrays[a.array].kind == INPUT, "no place for a product");
      const bool saved = n.below(2), transposed = n.below(2);
      const Given& w = in.next();
      require(w.rank == 3 && w.at(0) > 0 && w.at(0) < 256, "a matrix is not of rank 3, or in too many blocks");
      if (saved) a.saved = out.next({T, B, arrays[a.array].width});
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
    call.products = products.size();
    for (int64_t i = 0; i < call.extras; ++i) {
      Extra a{};
      a.array = array(EXTRA);
      a.data = in.next({arrays[a.array].width});
      extras.push_back(a);
    }
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
    for (int64_t i = 0; i < call.outputs; ++i) {
      Output a{};
      a.array = n.below(arrays.size());
      require(arrays[a.array].kind == OUTPUT || arrays[a.array].kind == STATE, "no place for an output");
      const int64_t width = arrays[a.array].width;
      a.y = call.batch_first ? out.next({B, T, width}) : out.next({T, B, width});
      outputs.push_back(a);
    }
    call.product = products.data(), call.extra = extras.data(), call.state = states.data();
    call.output = outputs.data();
  }

  const Place* read_places(int64_t number) {
    std::vector<Place>& all = places.emplace_back(number);
    for (Place& p : all) {
      p.array = n.below(arrays.size()), p.column = n.below(arrays[p.array].columns), p.fresh = n.below(2);
      require(!p.fresh || arrays[p.array].kind == STATE, "only a state is old or new");
    }
    return all.data();
  }

  void read_actions() {
    const int64_t number = n.below(1024);
    for (int64_t i = 0; i < number; ++i) {
      Action a{};
      const int64_t kind = n.below(3);
      a.is_run = kind == 1, a.is_fold = kind == 2;
      if (a.is_run) read_run(a.run);
      else if (a.is_fold) read_fold(a.fold);
      else read_multiply(a.multiply);
      actions.push_back(a);
    }
    call.actions = number, call.action = actions.data();
  }

  void read_run(Run& r) {
    r.places = n.below(MOST_REGISTERS_IN_ALL), r.place = read_places(r.places);
    r.constants = n.below(MOST_REGISTERS_IN_ALL), r.temporaries = n.below(MOST_REGISTERS_IN_ALL);
    const int64_t registers = r.places + r.constants + r.temporaries;
    require(registers < MOST_REGISTERS_IN_ALL, "there are too many registers");
    r.instructions = n.next();
    require(r.instructions >= 0 && r.instructions <= codes / 5, "there is too little code");
    require(r.constants <= constants, "there are too few constants");
    r.code = code, r.value = value;
    for (int64_t i = 0; i < 5 * r.instructions; ++i)
      require(code[i] >= 0 && code[i] < (i % 5 ? registers : OPERATIONS), "an instruction is out of range");
    code += 5 * r.instructions, codes -= 5 * r.instructions, value += r.constants, constants -= r.constants;
    require(r.places > 0, "a run without places");
    r.length = arrays[r.place[0].array].lengths[r.place[0].column];
    for (int64_t i = 0; i < r.places; ++i)
      require(arrays[r.place[i].array].lengths[r.place[i].column] == r.length, "columns differ in length");
    for (int64_t i = 0; i < r.instructions; ++i) {
      const int64_t to = r.code[5 * i + 1];
      require(to >= r.places + r.constants || (to < r.places && written(r.place[to])),
              "an instruction writes what is only read");
    }
  }
  bool written(const Place& p) const {
    const int64_t kind = arrays[p.array].kind;
    return kind == BETWEEN || kind == OUTPUT || (kind == STATE && p.fresh);
  }

  void read_fold(Fold& f) {
    f.op = n.below(4), f.out = array(BETWEEN);
    f.places = n.below(MOST_COLUMNS), f.place = read_places(f.places);
    require(f.places > 0, "a sum of nothing");
  }

  void read_multiply(Multiply& m) {
    m.matrix = n.below(products.size()), m.adds = n.below(2);
    m.out = products[m.matrix].array;
    m.places = n.below(MOST_COLUMNS), m.place = read_places(m.places);
    int64_t K = 0;
    for (int64_t i = 0; i < m.places; ++i) K += arrays[m.place[i].array].lengths[m.place[i].column];
    require(m.places > 0 && K == products[m.matrix].w.rows, "a matrix has other rows than it is given");
  }
};

// An argument or a result of a call.
struct Buffer {
  Given given;
  Type type() const { return given.data.type; }
  int64_t elements() const {
    int64_t n = 1;
    for (int64_t i = 0; i < given.rank; ++i) n *= given.at(i);
    return n;
  }
};

// A call, checked: the first three arguments are a program, that is its plan, its code,
// and its constants. The plan says first which masks follow last, and at most how wide
// vectors are.
class Request {
 public:
  Request(const std::vector<Buffer>& arguments, const std::vector<Buffer>& results) {
    require(arguments.size() > 3, "there are too few arrays");
    const Buffer &numbers = arguments[0], &code = arguments[1], &values = arguments[2];
    require(numbers.type() == INT32 && code.type() == INT32, "a program is not of integers");
    type_ = values.type();
    require(type_ == FLOAT32 || type_ == FLOAT64, "it is neither float32 nor float64");
    const auto* first = (const int32_t*)numbers.given.data;
    numbers_.assign(first, first + numbers.elements());
    constants_.resize(values.elements());
    for (size_t i = 0; i < constants_.size(); ++i)
      constants_[i] = type_ == FLOAT32 ? ((const float*)values.given.data)[i] : ((const double*)values.given.data)[i];
    require(numbers_.size() > 2 && numbers_[0] >= 0 && numbers_[0] < 4, "the plan ends too early");
    const int64_t masks = numbers_[0], number = (masks & 1) + (masks >> 1);
    require(int64_t(arguments.size()) > 3 + number, "there are too few arrays");
    std::vector<Given> in, out, of_steps;
    const size_t last = arguments.size() - number;
    for (size_t i = 3; i < arguments.size(); ++i) {
      const Type type = arguments[i].type();
      require(i < last ? fits(type) : type == BOOL, "arguments have other types");
      (i < last ? in : of_steps).push_back(arguments[i].given);
    }
    for (const Buffer& b : results) {
      require(fits(b.type()), "results have other types");
      out.push_back(b.given);
    }
    plan_.emplace(numbers_.data() + 2, numbers_.size() - 2, (const int32_t*)code.given.data, code.elements(),
                  constants_.data(), constants_.size(), in, out, of_steps);
    size_t next = 0;
    if (masks & 1) plan_->call.valid = (const uint8_t*)of_steps.at(next++).data;
    if (masks & 2) plan_->call.keep = (const uint8_t*)of_steps.at(next++).data;
  }

  int64_t vectors() const { return numbers_[1]; }

  // Null, or why it did not run.
  template <class Crew>
  const char* run(const Kernel& kernel, Crew& crew, int64_t threads, Pairs pairs = nullptr) const {
    Call call = plan_->call;
    call.pairs = pairs;
    auto all = [](void* c, int64_t n, void (*f)(void*, int64_t), void* a) { ((Crew*)c)->all(n, f, a); };
    return (type_ == FLOAT32 ? kernel.float32 : kernel.float64)(call, Workers{&crew, all, threads});
  }

 private:
  // With float32 arrays may have 16 bits.
  bool fits(Type type) const {
    return type == type_ || (type_ == FLOAT32 && (type == BFLOAT16 || type == FLOAT16));
  }

  Type type_;
  std::vector<int64_t> numbers_;
  std::vector<double> constants_;
  std::optional<Plan> plan_;
};

}  // namespace jaxseq
