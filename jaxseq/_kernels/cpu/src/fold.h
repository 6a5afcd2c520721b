// One number of all elements of a row.
#pragma once
#include "math.h"

namespace {

enum { SUM, LARGEST, LEAST, PRODUCT_OF };
constexpr int FOLDS = 4;

// What changes nothing; -0 and not 0, to which -0 would be added in vain.
template <class T>
inline T start_of(int64_t op) {
  const T infinity = T(__builtin_inf());
  return op == SUM ? T(-0.0) : op == LARGEST ? -infinity : op == LEAST ? infinity : T(1);
}

template <class T>
inline V<T> joined(int64_t op, V<T> a, V<T> b) {
  return op == SUM       ? a + b
         : op == LARGEST ? maximum<T>(a, b)
         : op == LEAST   ? minimum<T>(a, b)
                         : a * b;
}

// `x` with n more elements; vectors first, as a sum of many is the more exact so
template <class T>
inline T folded(int64_t op, T x, const T* p, int64_t n) {
  constexpr int W = Vector<T>::W;
  V<T> y = all<T>(start_of<T>(op));
  int64_t j = 0;
  for (; j + W <= n; j += W) y = joined<T>(op, y, load(p + j));
  T rest[W];
  for (int i = 0; i < W; ++i) rest[i] = j + i < n ? p[j + i] : start_of<T>(op);
  y = joined<T>(op, y, load(rest));
  for (int i = 0; i < W; ++i) x = joined<T>(op, all<T>(x), all<T>(y[i]))[0];
  return x;
}

template <class T>
inline void spread(T x, T* to, int64_t n) {
  for (int64_t j = 0; j < n; j += Vector<T>::W) store<T>(to + j, all<T>(x));
}

}  // namespace
