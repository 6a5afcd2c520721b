// One number of all elements of a row.
#pragma once
#include "integers.h"

namespace {

using jaxseq::FOLDS;

enum { SUM, LARGEST, LEAST, PRODUCT_OF, ALL_BITS, INT_SUM, INT_LARGEST, INT_LEAST, INT_PRODUCT };
static_assert(INT_PRODUCT + 1 == FOLDS, "plan.h counts them");

// What changes nothing; -0 and not 0, to which -0 would be added in vain.
template <class T>
inline T start_of(int64_t op) {
  const T infinity = T(__builtin_inf());
  switch (op) {
    case SUM: return T(-0.0);
    case LARGEST: return -infinity;
    case LEAST: return infinity;
    case PRODUCT_OF: return T(1);
    case INT_LARGEST: return with_bits<T>(-LARGEST_INT<T> - 1);
    case INT_LEAST: return with_bits<T>(LARGEST_INT<T>);
    case INT_PRODUCT: return with_bits<T>(1);
    default: return with_bits<T>(0);
  }
}

template <int OP, class T>
inline V<T> joined(V<T> a, V<T> b) {
  if constexpr (OP == SUM) return a + b;
  else if constexpr (OP == LARGEST) return maximum<T>(a, b);
  else if constexpr (OP == LEAST) return minimum<T>(a, b);
  else if constexpr (OP == PRODUCT_OF) return a * b;
  else if constexpr (OP == INT_SUM) return (V<T>)((Bits<T>)a + (Bits<T>)b);
  else if constexpr (OP == INT_LARGEST) return integer_maximum<T>(a, b);
  else if constexpr (OP == INT_LEAST) return integer_minimum<T>(a, b);
  else if constexpr (OP == INT_PRODUCT) return (V<T>)((Bits<T>)a * (Bits<T>)b);
  else return (V<T>)((I<T>)a | (I<T>)b);
}

// `y` with n more elements, each of them in a lane. The operation is known to the
// compiler here, which would compute all of them and choose for each vector.
template <int64_t op, class T>
inline V<T> folded(V<T> y, const T* p, int64_t n) {
  constexpr int W = Vector<T>::W;
  int64_t j = 0;
  for (; j + W <= n; j += W) y = joined<op, T>(y, load(p + j));
  if (j == n) return y;
  T rest[W];
  for (int i = 0; i < W; ++i) rest[i] = j + i < n ? p[j + i] : start_of<T>(op);
  return joined<op, T>(y, load(rest));
}

// All lanes: halves of them, again and again, so that few wait for each other.
template <int64_t op, class T>
inline T across(V<T> y) {
  constexpr int W = Vector<T>::W;
  T lane[W];
  store<T>(lane, y);
  for (int k = W / 2; k; k /= 2)
    for (int i = 0; i < k; ++i) lane[i] = joined<op, T>(everywhere<T>(lane[i]), everywhere<T>(lane[i + k]))[0];
  return lane[0];
}

template <class T>
inline void spread(T x, T* to, int64_t n) {
  for (int64_t j = 0; j < n; j += Vector<T>::W) store<T>(to + j, everywhere<T>(x));
}

}  // namespace
