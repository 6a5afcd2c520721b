// The arrays of calls, as `calls.py` has written them to files.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "given.h"
#include "half.h"

namespace {

using jaxseq::Buffer;
using jaxseq::Type;

// Each has memory of its own, no larger than it is, unless it is shared on purpose.
struct Array_ {
  Type type;
  std::vector<int64_t> sizes;
  std::shared_ptr<char[]> data;
  int64_t elements() const {
    int64_t n = 1;
    for (int64_t s : sizes) n *= s;
    return n;
  }
  int64_t bytes() const { return elements() * jaxseq::bytes_of(type); }
  Buffer buffer() const { return {{sizes.data(), int64_t(sizes.size()), {data.get(), type}}}; }
  Array_ like() const { return {type, sizes, std::shared_ptr<char[]>(new char[bytes()])}; }
  Array_ copy() const {
    Array_ a = like();
    std::copy_n(data.get(), bytes(), a.data.get());
    return a;
  }
};

struct Case {
  std::vector<Array_> arguments, results;
  std::vector<std::pair<int64_t, int64_t>> over;  // arguments whose memory a result may take
  std::vector<int64_t> said;                      // of gradients of matrices; else empty
  int64_t members;                                // or -1
  std::string own;                                // of each argument, zeros and ones
  std::string integers;                           // of each result, whether it has integers
};

inline int64_t number(std::ifstream& f) {
  int64_t n = 0;
  f.read((char*)&n, 8);
  return n;
}

inline std::vector<Array_> arrays(std::ifstream& f) {
  std::vector<Array_> all(number(f));
  for (Array_& a : all) {
    a.type = Type(number(f));
    a.sizes.resize(number(f));
    for (int64_t& s : a.sizes) s = number(f);
    a = a.like();
    f.read(a.data.get(), a.bytes());
  }
  return all;
}

inline Case read(const char* name) {
  std::ifstream f(name, std::ios::binary);
  f.exceptions(std::ifstream::failbit);
  Case c;
  c.arguments = arrays(f), c.results = arrays(f);
  c.over.resize(number(f));
  for (auto& pair : c.over) pair.first = number(f), pair.second = number(f);
  c.said.resize(number(f));
  for (int64_t& n : c.said) n = number(f);
  c.members = number(f), c.own.resize(number(f));
  for (char& yes : c.own) yes = char('0' + number(f));
  c.integers.resize(number(f));
  for (char& yes : c.integers) yes = char('0' + number(f));
  return c;
}

inline bool same(const Array_& a, const Array_& b) { return !std::memcmp(a.data.get(), b.data.get(), a.bytes()); }

// With `half`, sums of products of numbers that some processors round to 16 bits.
template <class T>
bool near(const Array_& a, const Array_& b, bool half) {
  const T *p = (const T*)a.data.get(), *q = (const T*)b.data.get();
  for (int64_t i = 0; i < a.elements(); ++i) {
    const double x = ::number(p[i]), y = ::number(q[i]);
    const double most = (half || sizeof(T) == 2 ? 3e-2 : sizeof(T) == 4 ? 1e-4 : 1e-11) * (1 + std::abs(y));
    if (!(std::abs(x - y) <= most) && !(std::isnan(x) && std::isnan(y)) && x != y) return false;
  }
  return true;
}

// Whether a result is what it was: the same bits if it has integers, which are the bits of
// floats, else nearly the same numbers.
inline bool near(const Case& c, size_t i, const Array_& a) {
  const Array_& b = c.results[i];
  if (c.integers[i] == '1') return same(a, b);
  bool half = false;
  for (const Array_& one : c.arguments) half |= !c.said.empty() && one.type == jaxseq::BFLOAT16;
  switch (a.type) {
    case jaxseq::FLOAT16: return near<Float16>(a, b, half);
    case jaxseq::BFLOAT16: return near<Bfloat16>(a, b, half);
    case jaxseq::FLOAT32: return near<float>(a, b, half);
    case jaxseq::FLOAT64: return near<double>(a, b, half);
    default: return same(a, b);
  }
}

}  // namespace
