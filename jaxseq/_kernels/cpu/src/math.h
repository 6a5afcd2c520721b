// Functions of vectors. NaN passes through all of them.
#pragma once
#include "half.h"

namespace {

template <class T>
inline V<T> all(T x) {
  return x - V<T>{};  // which keeps -0
}
// where the bits of `m` are set `a`, else `b`
template <class T>
inline V<T> blend(I<T> m, V<T> a, V<T> b) {
  return (V<T>)(((I<T>)a & m) | ((I<T>)b & ~m));
}
template <class T>
inline V<T> absolute(V<T> x) {
  const I<T> sign = (I<T>)all<T>(T(-0.0));
  return (V<T>)((I<T>)x & ~sign);
}
template <class T>
inline V<T> with_sign(V<T> x, V<T> of) {
  const I<T> sign = (I<T>)all<T>(T(-0.0));
  return (V<T>)(((I<T>)x & ~sign) | ((I<T>)of & sign));
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

// To a float, this adds an integer in its lowest bits: it rounds to integers.
template <class T>
constexpr T ROUNDER = T(1.5) * T(uint64_t(1) << Of<T>::MANTISSA);

// (exp(r) - 1 - r) / r^2 for |r| <= log(2) / 2, by its series
template <class T>
inline V<T> ratio(V<T> r);

template <>
inline V<float> ratio<float>(V<float> r) {
  V<float> q = all<float>(1.f / 5040);
  q = q * r + 1.f / 720;
  q = q * r + 1.f / 120;
  q = q * r + 1.f / 24;
  q = q * r + 1.f / 6;
  return q * r + 0.5f;
}
template <>
inline V<double> ratio<double>(V<double> r) {
  V<double> q = all<double>(1. / 6227020800.);
  q = q * r + 1. / 479001600.;
  q = q * r + 1. / 39916800.;
  q = q * r + 1. / 3628800.;
  q = q * r + 1. / 362880.;
  q = q * r + 1. / 40320.;
  q = q * r + 1. / 5040.;
  q = q * r + 1. / 720.;
  q = q * r + 1. / 120.;
  q = q * r + 1. / 24.;
  q = q * r + 1. / 6.;
  return q * r + 0.5;
}

// log(2) in two parts, the first with zeros at its end
template <class T>
constexpr T LN2_HIGH = sizeof(T) == 4 ? T(0.693359375) : T(0x1.62e42feep-1);
template <class T>
constexpr T LN2_LOW = sizeof(T) == 4 ? T(-2.12194440e-4) : T(0x1.a39ef35793c76p-33);

// x = n log(2) + r: exp(r) - 1, and n
template <class T>
inline V<T> reduced(V<T> x, V<T>* n) {
  *n = (x * T(1.442695040888963407) + ROUNDER<T>)-ROUNDER<T>;
  V<T> r = x - *n * LN2_HIGH<T>;
  r = r - *n * LN2_LOW<T>;
  return ratio<T>(r) * (r * r) + r;
}
// 2^n of integers
template <class T>
inline V<T> power(V<T> n) {
  const V<T> rounder = all<T>(ROUNDER<T>);
  I<T> i = (I<T>)(n + rounder) - (I<T>)rounder;
  return (V<T>)((i + Of<T>::BIAS) << Of<T>::MANTISSA);
}

template <class T>
constexpr T EXP_MOST = sizeof(T) == 4 ? T(88.7228390) : T(709.782712893384);
template <class T>
constexpr T EXP_LEAST = sizeof(T) == 4 ? T(-87.3365447) : T(-708.396418532264);

template <class T>
inline V<T> exponential(V<T> x) {
  V<T> n, y = x;
  const V<T> high = all<T>(EXP_MOST<T>), low = all<T>(EXP_LEAST<T>);
  x = blend<T>((I<T>)(x > high), high, x);  // comparisons with NaN are false
  x = blend<T>((I<T>)(x < low), low, x);
  V<T> e = reduced<T>(x, &n);
  // 2^n itself may not be finite where the result is
  V<T> half = (n * T(0.5) + ROUNDER<T>)-ROUNDER<T>;
  V<T> s = power<T>(half);
  e = ((e + T(1)) * s) * power<T>(n - half);
  e = blend<T>((I<T>)(y > high), all<T>(T(__builtin_inf())), e);
  return blend<T>((I<T>)(y < low), V<T>{}, e);
}
template <class T>
inline V<T> exponential_less_1(V<T> x) {
  const V<T> high = all<T>(T(sizeof(T) == 4 ? 60 : 600)), low = all<T>(T(-40));
  V<T> n, y = blend<T>((I<T>)(x < low), low, blend<T>((I<T>)(x > high), high, x));
  V<T> e = reduced<T>(y, &n), s = power<T>(n);
  e = e * s + (s - T(1));
  e = blend<T>((I<T>)(x > high), exponential<T>(x), e);
  return blend<T>((I<T>)(x == V<T>{}), x, e);
}
template <class T>
inline V<T> logistic(V<T> x) {
  const V<T> low = all<T>(EXP_LEAST<T>);
  V<T> n, a = -absolute<T>(x), b = blend<T>((I<T>)(a < low), low, a);
  V<T> e = reduced<T>(b, &n), s = power<T>(n);
  e = (e + T(1)) * s;  // exp(-|x|)
  e = blend<T>((I<T>)(a < low), V<T>{}, e);
  return blend<T>((I<T>)(x < V<T>{}), e, all<T>(T(1))) / (e + T(1));
}
template <class T>
inline V<T> tangent(V<T> x) {  // hyperbolic
  const V<T> low = all<T>(T(-60));
  V<T> n, a = absolute<T>(x) * T(-2);
  a = blend<T>((I<T>)(a < low), low, a);
  V<T> e = reduced<T>(a, &n), s = power<T>(n);
  e = e * s + (s - T(1));  // exp(-2|x|) - 1, exact near 0
  return with_sign<T>(-e / (e + T(2)), x);
}

// log of x = 2^n m with m from sqrt(1/2) to sqrt(2), by s = (m - 1) / (m + 1)
template <class T>
inline V<T> logarithm(V<T> x) {
  typedef typename Vector<T>::U U;
  constexpr int M = Of<T>::MANTISSA;
  const T whole = T(uint64_t(1) << M);
  const U root = (U)all<T>(T(0.70710678118654752));
  const U one = (U)all<T>(T(1));
  U bits = (U)x + (one - root);
  V<T> n = (V<T>)((bits >> M) | (U)all<T>(whole)) - (whole + Of<T>::BIAS);
  const U fraction = (one - one) + ((typename Of<T>::Unsigned(1) << M) - 1);
  V<T> m = (V<T>)((bits & fraction) + root);
  V<T> f = m - T(1), s = f / (m + T(1)), q = s * s;
  V<T> p;
  if constexpr (sizeof(T) == 4) {
    p = all<T>(T(2. / 9));
  } else {
    p = all<T>(T(2. / 23));
    p = p * q + T(2. / 21);
    p = p * q + T(2. / 19);
    p = p * q + T(2. / 17);
    p = p * q + T(2. / 15);
    p = p * q + T(2. / 13);
    p = p * q + T(2. / 11);
    p = p * q + T(2. / 9);
  }
  p = p * q + T(2. / 7);
  p = p * q + T(2. / 5);
  p = p * q + T(2. / 3);
  // log(m) = f - s (f - p s^2)
  V<T> y = (f - s * (f - p * q)) + n * LN2_LOW<T>;
  y = n * LN2_HIGH<T> + y;
  y = blend<T>((I<T>)(x < all<T>(T(sizeof(T) == 4 ? 1.17549435e-38 : 2.2250738585072014e-308))),
               all<T>(T(-__builtin_inf())), y);
  y = blend<T>((I<T>)(x < V<T>{}), all<T>(T(__builtin_nan(""))), y);
  return blend<T>((I<T>)(x == all<T>(T(__builtin_inf()))) | (I<T>)(x != x), x, y);
}
template <class T>
inline V<T> logarithm_of_1_plus(V<T> x) {
  V<T> u = x + T(1);
  V<T> y = logarithm<T>(u) + (x - (u - T(1))) / u;
  I<T> rest = (I<T>)(u == V<T>{}) | (I<T>)(x == all<T>(T(__builtin_inf())));
  y = blend<T>(rest, logarithm<T>(u), y);
  return blend<T>((I<T>)(x == V<T>{}), x, y);
}
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
template <class T>
inline V<T> root(V<T> x) {
  return each<T>(x, [](T a) { return sizeof(T) == 4 ? T(__builtin_sqrtf(a)) : T(__builtin_sqrt(a)); });
}
template <class T>
inline V<T> sign(V<T> x) {
  V<T> y = blend<T>((I<T>)(x > V<T>{}), all<T>(T(1)), x);
  return blend<T>((I<T>)(x < V<T>{}), all<T>(T(-1)), y);
}

}  // namespace
