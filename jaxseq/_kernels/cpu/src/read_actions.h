// Reads what a step does, runs, folds and products, and checks it against the arrays.
#pragma once
#include "given.h"

namespace jaxseq {

constexpr int64_t MOST_COLUMNS = 4096;

#define OP(name, value) +1
constexpr int64_t OPERATIONS = 0
#include "ops.h"
    ;
#undef OP

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

  void read(int64_t number) {
    for (int64_t i = 0; i < number; ++i) {
      Action a{};
      const int64_t kind = n.below(3);
      a.is_run = kind == 1, a.is_fold = kind == 2;
      if (a.is_run) read_run(a.run);
      else if (a.is_fold) read_fold(a.fold);
      else read_multiply(a.multiply);
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
    r.constants = n.below(MOST_REGISTERS), r.temporaries = n.below(MOST_REGISTERS);
    const int64_t registers = r.places + r.constants + r.temporaries;
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
    f.op = n.below(FOLDS), f.out = n.below(arrays.size());
    require(arrays[f.out].kind == BETWEEN, "an array is of another kind");
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
