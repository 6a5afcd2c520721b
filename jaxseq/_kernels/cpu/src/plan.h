// What a call of the engine is given: plain structures, shared by the module and by the
// kernels, which are compiled once for each set of instructions.
#pragma once
#include <cstddef>
#include <cstdint>

namespace jaxseq {

enum Type { INT32, FLOAT32, FLOAT64, BOOL, BFLOAT16, FLOAT16, OTHER };

inline int64_t bytes_of(Type type) {
  switch (type) {
    case BOOL: return 1;
    case BFLOAT16:
    case FLOAT16: return 2;
    case FLOAT64: return 8;
    default: return 4;
  }
}

// Where elements of an array lie, and what they are.
struct Ref {
  void* data = nullptr;
  Type type = OTHER;
  Ref at(int64_t i) const { return {(char*)data + i * bytes_of(type), type}; }
  explicit operator bool() const { return data; }
  template <class T>
  explicit operator T*() const {
    return (T*)data;
  }
};

// What an array of one step holds.
// What is shared has one row for all rows of a block, as have extras.
enum Kind : int64_t { INPUT, PRODUCT, STATE, EXTRA, BETWEEN, OUTPUT, SHARED };
inline bool is_shared(int64_t kind) { return kind == EXTRA || kind == SHARED; }

// A row of `width` elements in columns; all rows of a column lie together.
struct Array {
  int64_t kind, width, columns;
  const int64_t* lengths;  // of the columns
};

// A column of an array; of a state the old one or the new one.
struct Place {
  int64_t array, column, fresh;
};

constexpr int MOST_REGISTERS = 256;  // a run has fewer

// Instructions over columns of one length: op, result, and up to three operands, which
// are registers: places, then constants, then what the first instructions, `once`, compute
// of those before all steps, then temporaries. A place may have one element for a whole row. What
// writes to shared rows runs for one row, which is the same as all others.
struct Run {
  int64_t length, places, constants, once, temporaries, instructions;
  bool is_shared, has_one;
  const Place* place;
  const double* value;
  const int32_t* code;
};

// What stands at some places times a matrix, put into an array or added to it.
struct Multiply {
  int64_t matrix, out, adds, places;
  const Place* place;
};

// The sum, largest, least, product (0 to 3) of what stands at some places of a row, or the
// same of integers (4 to 7), as a row of one element.
struct Fold {
  int64_t op, out, places;
  bool is_shared;
  const Place* place;
};
constexpr int FOLDS = 8;  // operations of folds

struct Action {
  bool is_run, is_fold;  // else it is a product
  Run run;
  Multiply multiply;
  Fold fold;
};

// It is (rows, columns) in memory, or (columns, rows) if it is transposed.
struct Matrix {
  Ref data;
  int64_t rows, columns;
  bool transposed;
};

// An input: its map is x w + b, or x itself.
struct Input {
  Ref x;  // (T, B, width), or (B, T, width)
  // (B, width), or null: then each step reads the row of the step that runs after it, and
  // the last one reads this
  Ref end;
  int64_t width, array;
  bool batch_first, has_w;
  Matrix w;
  Ref b;
  Ref saved;  // (T, B, width of the map), or null
};

// What a state becomes where a step is not to keep it: zero, or its start, or it is kept;
// or zero, and what it was is added to `lost`.
enum Reset : int64_t { CLEARED, STARTED, KEPT, LOST };

struct State {
  int64_t width, array, reset;
  Ref first, start;  // (B, width); `start` may be null, as may `lost`
  Ref last, lost, saved;
};

struct Extra {
  int64_t array;
  Ref data;
};

struct Output {
  int64_t array;
  Ref y;
};

// A matrix, or one of the blocks along the diagonal of one, fills some columns of an array.
struct Product {
  int64_t array;
  Matrix w;
  int64_t columns;
  const int64_t* column;
  Ref saved;
};

// A row of the left side of a product, and where its results go.
template <class T>
struct Row {
  const T* a;
  T* c;
  int64_t row;
};

// Where a vector of results lies, beside the address of its array: at `at`, and `pad`
// further for each row. `first` and `count` say which columns of the matrix it has.
struct Slot {
  int64_t at, pad, first, count;
};

enum Begin { ZERO, ADD, BIAS };  // what the sums begin with

// The left side of a tile of tiles.h: packed, as many elements for each k as a tile has
// rows, or rows as they lie, and then what is fetched for later, so many bytes further at
// each k.
template <class T>
struct Side {
  const T* packed;
  const T* row[8];
  const char* ahead;
  int64_t apart;
};

// Products of pairs of bfloat16, by instructions that not all processors have; see pairs.cc.
// M rows times n vectors of K pairs of a matrix, and a tile as tiles.h has it.
typedef void (*Pairs)(int64_t n, int64_t K, int64_t M, const Row<float>* rows, const float* b,
                      const Slot* slot, Begin begin, const float* bias);
typedef void (*PairSums)(int64_t n, int64_t K, const Side<float>& side, const float* b, float* c,
                         int64_t pitch, bool adds);
struct OfPairs {
  Pairs products;
  PairSums sums;
};

struct Call {
  int64_t B, T, rows;  // at most so many rows of the batch run together
  bool batch_first, reverse;  // of outputs; time goes from the last step to the first
  int64_t arrays, actions, before;  // of the actions, how many come before all steps
  int64_t inputs, states, extras, outputs, products;
  const Array* array;
  const Action* action;
  const Input* input;
  const State* state;
  const Extra* extra;
  const Output* output;
  const Product* product;
  const uint8_t *valid, *keep;  // (T, B), or null
  Pairs pairs;                  // or null
};

// Runs f(argument, i) for all i below n, on as many threads as come.
struct Workers {
  void* context;
  void (*all)(void* context, int64_t n, void (*f)(void*, int64_t), void* argument);
  int64_t threads;
};

template <class Crew>
Workers workers_of(Crew& crew, int64_t threads) {
  auto all = [](void* c, int64_t n, void (*f)(void*, int64_t), void* a) { ((Crew*)c)->all(n, f, a); };
  return {&crew, all, threads};
}

// Rows of some width at T steps of B rows, by time or by row of the batch; those of step t
// may be what an array had before it, and `first` (B, width) before the first one.
struct Rows {
  Ref data, first;
  int64_t width;
  bool batch_first;
};

// A left side of a product, and the gradient (left width, width) of its matrix; a matrix
// (left width, width), and the gradient of its left side, which is written to.
struct Left {
  Rows a;
  void* dw;
};
struct Right {
  Ref w;
  Rows dx;
};

// What is asked of the gradient d (T, B, width) of sums of products. With pairs, d is rounded
// to bfloat16 in sums of products with left sides of that type.
struct Gradients {
  int64_t T, B, width, lefts, rights;
  bool reverse;  // whether step t comes after t + 1
  Ref d;
  const Left* left;
  void* db;  // (width), or null
  const Right* right;
  PairSums pairs;  // or null
};

constexpr const char* NO_MEMORY = "jaxseq: there is no memory for what a call computes";

// These return null, or why it did not run.
typedef const char* (*Forward)(const Call&, const Workers&);
typedef const char* (*Back)(const Gradients&, const Workers&);

struct Kernel {
  Forward float32, float64;
  Back back32, back64;
};

}  // namespace jaxseq
