// Functions of vectors. NaN passes through all of them.
#pragma once
#include "half.h"
#ifdef __x86_64__
#include <immintrin.h>
#if VECTOR_BYTES == 64
#define VECTOR(f) _mm512_##f
#elif VECTOR_BYTES == 32
#define VECTOR(f) _mm256_##f
#else
#define VECTOR(f) _mm_##f
#endif
#endif

namespace {

template <class T>
inline V<T> all(T x) {
  return x - V<T>{};  // which keeps -0
}
// `a` where `m` is not zero, else `b`
template <class T>
inline V<T> blend(I<T> m, V<T> a, V<T> b) {
  return m ? a : b;
}
template <class T>
inline V<T> absolute(V<T> x) {
  const I<T> sign = (I<T>)all<T>(T(-0.0));
  return (V<T>)((I<T>)x & ~sign);
}
// `a`, which has no sign or that of x, with that of x
template <class T>
inline V<T> with_sign(V<T> a, V<T> x) {
  return (V<T>)((I<T>)a | ((I<T>)x & (I<T>)all<T>(T(-0.0))));
}
// Of two zeros the one without a sign is the larger; other equals have the same bits.
template <class T>
inline V<T> maximum(V<T> a, V<T> b) {
  b = (V<T>)((I<T>)b & ((I<T>)a | ~(I<T>)(a == b)));
  return blend<T>((I<T>)(a > b) | (I<T>)(a != a), a, b);
}
template <class T>
inline V<T> minimum(V<T> a, V<T> b) {
  b = (V<T>)((I<T>)b | ((I<T>)a & (I<T>)(a == b)));
  return blend<T>((I<T>)(a < b) | (I<T>)(a != a), a, b);
}

// x between a and b, or NaN
template <class T>
inline V<T> within(T a, V<T> x, T b) {
  const V<T> low = all<T>(a), high = all<T>(b);
#ifdef __x86_64__  // one instruction each, which GCC does not find
  if constexpr (sizeof(T) == 4) return (V<T>)VECTOR(min_ps)(high, VECTOR(max_ps)(low, x));
  else return (V<T>)VECTOR(min_pd)(high, VECTOR(max_pd)(low, x));
#else
  x = blend<T>((I<T>)(x < low), low, x);  // comparisons with NaN are false
  return blend<T>((I<T>)(x > high), high, x);
#endif
}

// Whether a mask has any bit.
template <class T>
inline bool any(I<T> m) {
#if defined(__x86_64__) && VECTOR_BYTES == 64
  return _mm512_test_epi64_mask((__m512i)m, (__m512i)m);
#elif defined(__x86_64__) && VECTOR_BYTES == 32
  return _mm256_movemask_epi8((__m256i)m);
#elif defined(__x86_64__)
  return _mm_movemask_epi8((__m128i)m);
#else
  uint64_t word[VECTOR_BYTES / 8], some = 0;
  memcpy(word, &m, sizeof m);
  for (uint64_t w : word) some |= w;
  return some;
#endif
}
// x y + z, rounded once; only where there are instructions for it
template <class T>
inline V<T> multiplied(V<T> x, V<T> y, V<T> z) {
#ifdef __x86_64__
  if constexpr (sizeof(T) == 4) return (V<T>)VECTOR(fmadd_ps)(x, y, z);
  else return (V<T>)VECTOR(fmadd_pd)(x, y, z);
#else
  for (int i = 0; i < Vector<T>::W; ++i)
    z[i] = sizeof(T) == 4 ? T(__builtin_fmaf(x[i], y[i], z[i])) : T(__builtin_fma(x[i], y[i], z[i]));
  return z;
#endif
}

// c[0] + c[1] x + …; what belongs to even and to odd powers does not wait for each other
template <class T, int n>
inline V<T> polynomial(V<T> x, const T (&c)[n]) {
  const V<T> q = x * x;
  V<T> a = all<T>(c[n - 1]), b = all<T>(c[n - 2]);
  for (int i = n - 3; i > 0; i -= 2) {
    a = a * q + c[i];
    b = b * q + c[i - 1];
  }
  if constexpr (n % 2 == 0) return a * x + b;
  return b * x + (a * q + c[0]);
}

// To a float, this adds an integer in its lowest bits: it rounds to integers.
template <class T>
constexpr T ROUNDER = T(1.5) * T(uint64_t(1) << Of<T>::MANTISSA);

// Zero for what is taken as zero here: a function of the C library may look at its bits.
template <class T>
inline T flushed(T x) {
  return x == 0 ? x * 0 : x;
}
// What the C library has, one element at a time.
template <class T, class F>
inline V<T> each(V<T> x, F f) {
  for (int i = 0; i < Vector<T>::W; ++i) x[i] = f(flushed<T>(x[i]));
  return x;
}
template <class T, class F>
inline V<T> pairs(V<T> x, V<T> y, F f) {
  for (int i = 0; i < Vector<T>::W; ++i) x[i] = f(flushed<T>(x[i]), flushed<T>(y[i]));
  return x;
}
#define EACH(x, fn) each<T>(x, [](T a) { return sizeof(T) == 4 ? T(fn##f(a)) : T(fn(a)); })
#define PAIRS(x, y, fn) \
  pairs<T>(x, y, [](T a, T b) { return sizeof(T) == 4 ? T(fn##f(a, b)) : T(fn(a, b)); })
template <class T>
inline V<T> root(V<T> x) {
#ifdef __x86_64__
  if constexpr (sizeof(T) == 4) return (V<T>)VECTOR(sqrt_ps)(x);
  else return (V<T>)VECTOR(sqrt_pd)(x);
#else
  return EACH(x, __builtin_sqrt);
#endif
}
template <class T>
inline V<T> sign(V<T> x) {
  V<T> y = blend<T>((I<T>)(x > V<T>{}), all<T>(T(1)), x);
  return blend<T>((I<T>)(x < V<T>{}), all<T>(T(-1)), y);
}

}  // namespace
