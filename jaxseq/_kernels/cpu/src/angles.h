// Functions of angles. The polynomials have the least largest error.
#pragma once
#include "math.h"

namespace {

// pi / 2 in four parts. Integers below 2^13 or 2^20 times one of the first three are exact.
template <class T>
constexpr T QUARTER[] = {
    sizeof(T) == 4 ? T(0x1.92p+0) : T(0x1.921fb544p+0),
    sizeof(T) == 4 ? T(0x1.fb4p-12) : T(0x1.0b4611a6p-34),
    sizeof(T) == 4 ? T(0x1.444p-24) : T(0x1.3198a2ep-69),
    sizeof(T) == 4 ? T(0x1.68c234p-39) : T(0x1.b839a252049c1p-104),
};
template <class T>
constexpr T FAR_ANGLE = sizeof(T) == 4 ? T(1e4) : T(1e6);

// (sin(r) - r) / r^3 and (cos(r) - 1 + r^2 / 2) / r^4, of q = r^2 for |r| <= pi / 4
inline V<float> sine_series(V<float> q) {
  static constexpr float c[] = {-0.16666655f, 0.008332178f, -0.00019517234f};
  return polynomial<float>(q, c);
}
inline V<double> sine_series(V<double> q) {
  static constexpr double c[] = {
      -0x1.5555555555549p-3, 0x1.111111110f87ap-7, -0x1.a01a019c1199p-13, 0x1.71de3577b4e8ap-19,
      -0x1.ae5e6638965c7p-26, 0x1.5d930049701d1p-33,
  };
  return polynomial<double>(q, c);
}
inline V<float> cosine_series(V<float> q) {
  static constexpr float c[] = {0.041666646f, -0.0013887367f, 2.443839e-05f};
  return polynomial<float>(q, c);
}
inline V<double> cosine_series(V<double> q) {
  static constexpr double c[] = {
      0x1.555555555554cp-5, -0x1.6c16c16c1517ep-10, 0x1.a01a019cb1bf4p-16, -0x1.27e4f809f1733p-22,
      0x1.1ee9ebe983cafp-29, -0x1.8fae9c87f1d16p-37,
  };
  return polynomial<double>(q, c);
}

// Of a = n pi / 2 + r, from 0 to FAR_ANGLE: sin(r), cos(r), and n in the lowest bits.
template <class T>
struct Turned {
  V<T> sine, cosine;
  I<T> n;
};
template <class T>
inline Turned<T> turned(V<T> a) {
  const V<T> bits = a * T(0.636619772367581343) + ROUNDER<T>, n = bits - ROUNDER<T>;
  V<T> r = a;
  for (T part : QUARTER<T>) r = r - n * part;
  const V<T> q = r * r;
  return {r + r * (q * sine_series(q)), (T(1) - q * T(0.5)) + q * (q * cosine_series(q)), (I<T>)bits};
}
template <class T>
inline I<T> is_odd(I<T> n) {
  return -(n & 1);
}
// the bits of `n` that say whether the sign turns, where a float has it
template <class T>
inline V<T> turn_sign(V<T> x, I<T> n) {
  typedef typename Vector<T>::U U;
  return (V<T>)((U)x ^ ((U)n >> 1 << (8 * sizeof(T) - 1)));
}
template <class T>
inline I<T> sign_of(V<T> x) { return (I<T>)x & (I<T>)all<T>(T(-0.0)); }

template <class T>
inline V<T> sine(V<T> x) {
  const V<T> a = absolute<T>(x);
  if (any<T>((I<T>)(a > all<T>(FAR_ANGLE<T>)))) return EACH(x, __builtin_sin);
  const Turned<T> t = turned<T>(a);
  const V<T> y = turn_sign<T>(blend<T>(is_odd<T>(t.n), t.cosine, t.sine), t.n);
  return (V<T>)((I<T>)y ^ sign_of<T>(x));
}
template <class T>
inline V<T> cosine(V<T> x) {
  const V<T> a = absolute<T>(x);
  if (any<T>((I<T>)(a > all<T>(FAR_ANGLE<T>)))) return EACH(x, __builtin_cos);
  const Turned<T> t = turned<T>(a);
  return turn_sign<T>(blend<T>(is_odd<T>(t.n), t.sine, t.cosine), t.n + 1);
}

}  // namespace
