// What a call is given, before it is checked: numbers and arrays, taken one by one.
#pragma once
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "plan.h"

namespace jaxseq {

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
  bool has_shape(std::initializer_list<int64_t> shape) const {
    bool ok = rank == int64_t(shape.size());
    for (int64_t i = 0; ok && i < rank; ++i) ok = at(i) == shape.begin()[i];
    return ok;
  }
};

// An argument or a result of a call.
struct Buffer {
  Given given;
  Type type() const { return given.data.type; }
  int64_t elements() const {
    int64_t n = 1;
    for (int64_t i = 0; i < given.rank; ++i)
      require(!__builtin_mul_overflow(n, given.at(i), &n), "an array is too large");
    return n;
  }
};

// Takes arguments or results one by one, and checks their shapes.
class Taken {
 public:
  explicit Taken(std::vector<Given> all) : all_(std::move(all)) {}
  Ref next(std::initializer_list<int64_t> sizes) {
    const Given& g = next();
    require(g.has_shape(sizes), "an array has another shape than the plan says");
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

}  // namespace jaxseq
