// exp, log and what is made of them. NaN passes through all of them.
#pragma once
#include "math.h"

namespace {

template <class T>
constexpr T LN2 = T(0.693147180559945309);
// log(2) in two parts, the first with zeros at its end
template <class T>
constexpr T LN2_HIGH = sizeof(T) == 4 ? T(0.693359375) : T(0x1.62e42feep-1);
template <class T>
constexpr T LN2_LOW = sizeof(T) == 4 ? T(-2.12194440e-4) : T(0x1.a39ef35793c76p-33);

// x = n log(2) + r: n, and in the lowest bits of `bits` n + `more`
template <class T>
inline V<T> whole(V<T> x, V<T>* bits, int more) {
  const T rounder = ROUNDER<T> + T(more);
  *bits = x * T(1.442695040888963407) + rounder;
  return *bits - rounder;
}
// the same, but r
template <class T>
inline V<T> reduced(V<T> x, V<T>* bits, int more) {
  const V<T> n = whole<T>(x, bits, more);
  return (x - n * LN2_HIGH<T>) - n * LN2_LOW<T>;
}
// the lowest bits where a float has its exponent
template <class T>
inline typename Vector<T>::U exponent(V<T> n) {
  return (typename Vector<T>::U)n << Of<T>::MANTISSA;
}

// exp(r) - 1 for |r| <= log(2) / 2, by a polynomial for (exp(r) - 1 - r) / r^2 with the
// least largest error, below a tenth of a unit in the last place of exp(r). Its terms are
// summed in pairs, so that fewer of them wait for each other.
inline V<float> series(V<float> r) {
  const V<float> q = r * r;
  const V<float> a = r * 0.16666518f + 0.5f, b = r * 0.0083689112f + 0.041666206f;
  return (a + q * (b + q * 0.0013950523f)) * q + r;
}
inline V<double> series(V<double> r) {
  const V<double> q = r * r, q2 = q * q;
  const V<double> a = r * 0x1.5555555555563p-3 + 0x1.000000000000bp-1;
  const V<double> b = r * 0x1.111111110d0ddp-7 + 0x1.5555555550096p-5;
  const V<double> c = r * 0x1.a01a01bc7230dp-13 + 0x1.6c16c1859b538p-10;
  const V<double> d = r * 0x1.71dddca913538p-19 + 0x1.a01996a433d52p-16;
  const V<double> e = r * 0x1.af8a20d7ffbdcp-26 + 0x1.28b04382950cdp-22;
  return ((a + q * b) + q2 * ((c + q * d) + q2 * e)) * q + r;
}

template <class T>
constexpr T EXP_MOST = sizeof(T) == 4 ? T(88.7228390) : T(709.782712893384);
template <class T>
constexpr T EXP_LEAST = sizeof(T) == 4 ? T(-87.3365447) : T(-708.396418532264);

// `e`, but infinite where x is too large for it, and NaN where x is
template <class T>
inline V<T> limited(V<T> x, V<T> e) {
  const V<T> most = all<T>(EXP_MOST<T>);
  return blend<T>((I<T>)(x <= most), e, x + T(__builtin_inf()));
}

template <class T>
inline V<T> exponential(V<T> x) {
  V<T> n;
  const V<T> p = series(reduced<T>(x, &n, 0)) + T(1), least = all<T>(EXP_LEAST<T>);
  V<T> e = (V<T>)((typename Vector<T>::U)p + exponent<T>(n));
  e = blend<T>((I<T>)(x < least), V<T>{}, e);
  return limited<T>(x, e);
}
// (exp(x) - 1) / 4, finite for all x below log(2) + EXP_MOST
template <class T>
inline V<T> quarter_exponential_less_1(V<T> x) {
  const V<T> low = all<T>(T(-40));
  V<T> n, e = series(reduced<T>(blend<T>((I<T>)(x < low), low, x), &n, Of<T>::BIAS - 2));
  const V<T> quarter = (V<T>)exponent<T>(n);  // of 2^n, which may not be finite
  return e * quarter + (quarter - T(0.25));
}
template <class T>
inline V<T> exponential_less_1(V<T> x) {
  const V<T> tiny = all<T>(T(1e-30)), e = quarter_exponential_less_1<T>(x) * T(4);
  return limited<T>(x, blend<T>((I<T>)(absolute<T>(x) < tiny), x, e));
}
template <class T>
inline V<T> power_of_2(V<T> x) {
  const V<T> least = all<T>(T(1 - Of<T>::BIAS)), end = all<T>(T(Of<T>::BIAS + 1)), n = x + ROUNDER<T>;
  const V<T> p = series((x - (n - ROUNDER<T>)) * LN2<T>) + T(1);
  const V<T> e = (V<T>)((typename Vector<T>::U)p + exponent<T>(n));
  return blend<T>((I<T>)(x < end), blend<T>((I<T>)(x < least), V<T>{}, e), x + T(__builtin_inf()));
}
template <class T>
inline V<T> logistic(V<T> x) {  // e / (e + 1) of e = exp(x), zero below -87.7 or -708.7
  V<T> n;
  const V<T> p = series(reduced<T>(within<T>(EXP_LEAST<T> - T(1), x, T(40)), &n, Of<T>::BIAS)) + T(1);
  const V<T> e = p * (V<T>)exponent<T>(n);
  return e / (e + T(1));
}
template <class T>
inline V<T> tangent(V<T> x) {  // hyperbolic: (1 - e) / (1 + e) of e = exp(-2|x|)
  V<T> bits, a = absolute<T>(x), b = -(a + a);
  const V<T> n = whole<T>(b, &bits, Of<T>::BIAS);
  // one part of log(2) is enough: the larger n is, the less e matters
  const V<T> e = series(b - n * LN2<T>), s = (V<T>)exponent<T>(bits);
  V<T> y = ((T(1) - s) - e * s) / (e * s + (s + T(1)));  // 1 - s is exact near 0
  y = blend<T>((I<T>)(a > all<T>(T(20))), all<T>(T(1)), y);
  return with_sign<T>(y, x);
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

}  // namespace
