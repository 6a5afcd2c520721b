// Reads what a step does, runs, folds and products, and checks it against the arrays.
#pragma once
#include "given.h"

namespace jaxseq {

constexpr int64_t MOST_COLUMNS = 4096;

enum Operation : int64_t {
#define OP(name, value) OP_##name,
#include "ops.h"
#undef OP
  OPERATIONS
};

// The code of runs and their constants, of which each run takes the next ones.
struct Instructions {
  const int32_t* code;
  int64_t codes;
  const double* value;
  int64_t constants;
};

struct ActionReader {
  Numbers& n;
  Instructions left;
  const std::vector<Array>& arrays;
  const std::vector<Product>& products;
  std::vector<Action> actions{};
  std::vector<std::vector<Place>> places{};

  // The first ones, `before` all steps, read and write what steps have in common only.
  void read(int64_t number, int64_t before) {
    for (int64_t i = 0; i < number; ++i) {
      Action a{};
      const int64_t kind = n.below(3);
      a.is_run = kind == 1, a.is_fold = kind == 2;
      if (a.is_run) read_run(a.run);
      else if (a.is_fold) read_fold(a.fold);
      else read_multiply(a.multiply);
      if (i < before) {
        require(a.is_run || a.is_fold, "a product before all steps");
        for (const Place& p : places.back()) require(is_shared(arrays[p.array].kind), "an action before all steps has rows");
        require(a.is_run || a.fold.is_shared, "an action before all steps has rows");
      }
      actions.push_back(a);
    }
  }

 private:
  const Place* read_places(int64_t number) {
    std::vector<Place>& all = places.emplace_back(number);
    for (Place& p : all) {
      p.array = n.below(arrays.size()), p.column = n.below(arrays[p.array].columns), p.fresh = n.below(2);
      require(!p.fresh || arrays[p.array].kind == STATE, "only a state is old or new");
    }
    return all.data();
  }

  void read_run(Run& r) {
    r.places = n.below(MOST_REGISTERS), r.place = read_places(r.places);
    r.constants = n.below(MOST_REGISTERS), r.once = n.below(MOST_REGISTERS), r.temporaries = n.below(MOST_REGISTERS);
    const int64_t own = r.places + r.constants, registers = own + r.once + r.temporaries;
    require(registers < MOST_REGISTERS, "there are too many registers");
    r.instructions = n.next();
    require(r.instructions >= 0 && r.instructions <= left.codes / 5, "there is too little code");
    require(r.constants <= left.constants, "there are too few constants");
    const int64_t words = 5 * r.instructions;
    r.code = left.code, r.value = left.value;
    for (int64_t i = 0; i < words; ++i)
      require(r.code[i] >= 0 && r.code[i] < (i % 5 ? registers : OPERATIONS), "an instruction is out of range");
    left.code += words, left.codes -= words, left.value += r.constants, left.constants -= r.constants;
    require(r.places > 0, "a run without places");
    require(r.once <= r.instructions, "there is too little code");
    for (int64_t i = 0; i < r.places; ++i) r.length = r.length > length(r.place[i]) ? r.length : length(r.place[i]);
    for (int64_t i = 0; i < r.places; ++i) {
      require(length(r.place[i]) == r.length || length(r.place[i]) == 1, "columns differ in length");
      r.has_one |= length(r.place[i]) < r.length;
    }
    int64_t shared = 0, others = 0;
    for (int64_t i = 0; i < r.instructions; ++i) {
      const int32_t* c = r.code + 5 * i;
      const int64_t to = c[1];
      for (int64_t k = 2; k < 5; ++k) {
        if (i < r.once) require(c[k] >= r.places && c[k] < own + i, "an instruction that runs once reads more than constants");
        // what has one element is only spread
        const bool one = c[k] < r.places && length(r.place[c[k]]) < r.length;
        require(!one || c[0] == OP_spread, "columns differ in length");
        require(one || c[0] != OP_spread || k > 2 || i < r.once, "more than one element is spread");
      }
      if (i < r.once) {
        require(to == own + i, "an instruction that runs once reads more than constants");
      } else if (to < r.places) {
        const Place& p = r.place[to];
        require(written(p) && length(p) == r.length, "an instruction writes what is only read");
        ++(arrays[p.array].kind == SHARED ? shared : others);
      } else {
        require(to >= own + r.once, "an instruction writes what is only read");
      }
    }
    require(!shared || !others, "a run writes to shared rows and to others");
    r.is_shared = shared;
  }
  int64_t length(const Place& p) const { return arrays[p.array].lengths[p.column]; }
  bool written(const Place& p) const {
    const int64_t kind = arrays[p.array].kind;
    return kind == BETWEEN || kind == SHARED || kind == OUTPUT || (kind == STATE && p.fresh);
  }

  void read_fold(Fold& f) {
    f.op = n.below(FOLDS), f.out = n.below(arrays.size());
    const Array& out = arrays[f.out];
    require(out.kind == BETWEEN || out.kind == SHARED, "an array is of another kind");
    require(out.columns == 1 && out.width == 1, "a sum is more than one number");
    f.is_shared = out.kind == SHARED;
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

}  // namespace jaxseq
