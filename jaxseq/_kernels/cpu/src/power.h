// Powers of float32, by exp and log of float64.
#pragma once
#include "exponential.h"

namespace {

template <class T>
inline V<T> power(V<T> x, V<T> y) {
  if constexpr (sizeof(T) == 4) {
    typedef float Half __attribute__((vector_size(VECTOR_BYTES / 2)));
    const V<T> end = all<T>(T(__builtin_inf()));
    const I<T> is_zero = (I<T>)((I<T>)x == 0) & (I<T>)(y != V<T>{});  // as padding is
    const I<T> is_usual = ((I<T>)(x > V<T>{}) | is_zero) & (I<T>)(x < end) & (I<T>)(absolute<T>(y) < end);
    if (!any<T>(~is_usual)) {
      Half a[2], b[2];
      memcpy(a, &x, sizeof x), memcpy(b, &y, sizeof y);
      for (int i = 0; i < 2; ++i) {
        const V<double> log = logarithm<double>(__builtin_convertvector(a[i], V<double>));
        a[i] = __builtin_convertvector(exponential<double>(log * __builtin_convertvector(b[i], V<double>)), Half);
      }
      memcpy(&x, a, sizeof x);
      return x;
    }
  }
  return PAIRS(x, y, __builtin_pow);
}

}  // namespace
