// What a call of the engine is given: plain structures, shared by the module and by the
// kernels, which are compiled once for each set of instructions.
#pragma once
#include <cstddef>
#include <cstdint>

namespace jaxseq {

// What an array of one step holds.
enum Kind : int64_t { INPUT, PRODUCT, STATE, EXTRA, BETWEEN, OUTPUT };

// A row of `width` elements in columns; all rows of a column lie together.
struct Array {
  int64_t kind, width, columns;
  const int64_t* lengths;  // of the columns
};

// A column of an array; of a state the old one or the new one.
struct Place {
  int64_t array, column, fresh;
};

// Instructions over columns of one length: op, result, and up to three operands, which
// are registers: places, then constants, then temporaries.
struct Run {
  int64_t length, places, constants, temporaries, instructions;
  const Place* place;
  const double* value;
  const int32_t* code;
};

// What stands at some places times a matrix, put into an array or added to it.
struct Multiply {
  int64_t matrix, out, adds, places;
  const Place* place;
};

// The sum, largest, least or product (0 to 3) of what stands at some places of a row, put
// into every element of a row of an array.
struct Fold {
  int64_t op, out, places;
  const Place* place;
};

struct Action {
  bool is_run, is_fold;  // else it is a product
  Run run;
  Multiply multiply;
  Fold fold;
};

struct Matrix {
  const void* data;
  int64_t rows, columns;
};

// An input: its map is x w + b, or x itself.
struct Input {
  const void* x;
  int64_t width, array;
  bool has_w;
  Matrix w;
  const void* b;
  void* saved;  // (T, B, width of the map), or null
};

// What a state becomes where a step is not to keep it: zero, or its start, or it is kept;
// or zero, and what it was is added to `lost`.
enum Reset : int64_t { CLEARED, STARTED, KEPT, LOST };

struct State {
  int64_t width, array, reset;
  const void *first, *start;  // (B, width); `start` may be null, as may `lost`
  void *last, *lost, *saved;
};

struct Extra {
  int64_t array;
  const void* data;
};

struct Output {
  int64_t array;
  void* y;
};

struct Product {
  int64_t array;
  Matrix w;
  void* saved;
};

struct Call {
  int64_t B, T, rows;  // at most so many rows of the batch run together
  bool batch_first, reverse;
  int64_t arrays, actions, inputs, states, extras, outputs, products;
  const Array* array;
  const Action* action;
  const Input* input;
  const State* state;
  const Extra* extra;
  const Output* output;
  const Product* product;
  const uint8_t *valid, *keep;  // (T, B), or null
};

// Runs f(argument, i) for all i below n, on as many threads as come.
struct Workers {
  void* context;
  void (*all)(void* context, int64_t n, void (*f)(void*, int64_t), void* argument);
  int64_t threads;
};

// Returns null, or why it did not run.
typedef const char* (*Forward)(const Call&, const Workers&);

struct Kernel {
  Forward float32, float64;
};

}  // namespace jaxseq
