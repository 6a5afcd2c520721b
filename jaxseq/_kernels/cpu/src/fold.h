// One number of all elements of a row.
#pragma once
#include <utility>

#include "integers.h"

namespace {

using jaxseq::FOLDS;

enum { SUM, LARGEST, LEAST, PRODUCT_OF, INT_SUM, INT_LARGEST, INT_LEAST, INT_PRODUCT };
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
    default: return T(0);
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
  else return (V<T>)((Bits<T>)a * (Bits<T>)b);
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

// Lane i has what lane i + BY had.
template <int BY, class T, int... LANES>
inline V<T> rotated(V<T> y, std::integer_sequence<int, LANES...>) {
  constexpr int W = sizeof...(LANES);
#ifdef __clang__
  return __builtin_shufflevector(y, y, ((LANES + BY) % W)...);
#else
  return __builtin_shuffle(y, I<T>{((LANES + BY) % W)...});
#endif
}

// All lanes, in each of them: first halves are joined, then quarters.
template <int64_t op, class T, int BY = Vector<T>::W / 2>
inline V<T> across(V<T> y) {
  if constexpr (BY == 0) return y;
  else return across<op, T, BY / 2>(joined<op, T>(y, rotated<BY, T>(y, std::make_integer_sequence<int, Vector<T>::W>())));
}

}  // namespace
