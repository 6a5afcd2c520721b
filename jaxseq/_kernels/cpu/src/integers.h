// Integers in the lanes of floats, as their bits. Those of fewer bits than a lane are
// kept as the same number: after what may leave their range, a program wraps them.
#pragma once
#include "math.h"

namespace {

template <class T>
using Int = typename Of<T>::Int;
template <class T>
using Unsigned = typename Of<T>::Unsigned;
template <class T>
using Bits = typename Vector<T>::U;  // arithmetic that wraps around
template <class T>
constexpr int LANE = 8 * sizeof(T);
template <class T>
constexpr Int<T> LARGEST_INT = Int<T>(~Unsigned<T>(0) >> 1);

template <class T>
inline T with_bits(Int<T> i) {
  T x;
  memcpy(&x, &i, sizeof x);
  return x;
}
// As `all`, but with the same bits, whatever they are.
template <class T>
inline V<T> everywhere(T x) {
  Int<T> i;
  memcpy(&i, &x, sizeof x);
  return (V<T>)(i - I<T>{});
}

// Division toward zero, where y is not 0 or, of integers with a sign, -1. Doubles have all
// integers of 32 bits, and there are instructions that divide them.
template <class T, class N>
inline V<T> divided(V<T> x, V<T> y) {
  constexpr int W = Vector<T>::W;
  N a[W], b[W], q[W];
  memcpy(a, &x, sizeof x), memcpy(b, &y, sizeof y);
  for (int i = 0; i < W; ++i)
    if constexpr (sizeof(T) == 4) q[i] = N(double(a[i]) / double(b[i]));
    else q[i] = a[i] / b[i];
  memcpy(&x, q, sizeof x);
  return x;
}
template <class T>
inline V<T> integers(Int<T> i) {
  return (V<T>)(i - I<T>{});
}
// By zero it gives all bits.
template <class T>
inline V<T> quotient(V<T> x, V<T> y) {
  const I<T> zero = (I<T>)y == 0, turned = (I<T>)y == -1;
  const V<T> q = divided<T, Int<T>>(x, blend<T>(zero | turned, integers<T>(1), y));
  return blend<T>(zero, integers<T>(-1), blend<T>(turned, (V<T>)-(Bits<T>)x, q));
}
template <class T>
inline V<T> unsigned_quotient(V<T> x, V<T> y) {
  const I<T> zero = (I<T>)y == 0;
  const V<T> q = divided<T, Unsigned<T>>(x, blend<T>(zero, integers<T>(1), y));
  return blend<T>(zero, integers<T>(-1), q);
}
// What is left of x after a quotient; of 0 all of it.
template <class T>
inline V<T> rest_of(V<T> x, V<T> y, V<T> quotient) {
  return (V<T>)((Bits<T>)x - (Bits<T>)quotient * (Bits<T>)y);
}

template <class T>
inline V<T> integer_maximum(V<T> x, V<T> y) {
  return blend<T>((I<T>)x > (I<T>)y, x, y);
}
template <class T>
inline V<T> integer_minimum(V<T> x, V<T> y) {
  return blend<T>((I<T>)x < (I<T>)y, x, y);
}

// Nothing is left of what is shifted by a lane or more, or by less than 0.
template <class T>
inline I<T> is_within(V<T> y) {
  return (I<T>)((Bits<T>)y < Unsigned<T>(LANE<T>));
}
template <class T>
inline V<T> shifted_left(V<T> x, V<T> y) {
  return blend<T>(is_within<T>(y), (V<T>)((Bits<T>)x << ((Bits<T>)y & Unsigned<T>(LANE<T> - 1))), V<T>{});
}
template <class T>
inline V<T> shifted_right(V<T> x, V<T> y) {
  return blend<T>(is_within<T>(y), (V<T>)((Bits<T>)x >> ((Bits<T>)y & Unsigned<T>(LANE<T> - 1))), V<T>{});
}
template <class T>
inline V<T> shifted_with_sign(V<T> x, V<T> y) {
  const V<T> sign = (V<T>)((I<T>)x < I<T>{});
  return blend<T>(is_within<T>(y), (V<T>)((I<T>)x >> ((I<T>)y & Int<T>(LANE<T> - 1))), sign);
}

// Toward zero; what is out of range becomes the nearest number that is not, NaN zero.
template <class T>
inline V<T> integer_of(V<T> x) {
  const V<T> end = all<T>(T(Unsigned<T>(1) << (LANE<T> - 1)));
  const V<T> inside = blend<T>((I<T>)(x >= -end) & (I<T>)(x < end), x, V<T>{});
  V<T> i = (V<T>)__builtin_convertvector(inside, I<T>);
  i = blend<T>((I<T>)(x >= end), everywhere<T>(with_bits<T>(LARGEST_INT<T>)), i);
  return blend<T>((I<T>)(x < -end), everywhere<T>(with_bits<T>(-LARGEST_INT<T> - 1)), i);
}
template <class T>
inline V<T> unsigned_of(V<T> x) {
  constexpr T half = T(Unsigned<T>(1) << (LANE<T> - 1));
  I<T> out{};
  for (int i = 0; i < Vector<T>::W; ++i)
    out[i] = Int<T>(!(x[i] > 0) ? Unsigned<T>(0) : x[i] >= 2 * half ? ~Unsigned<T>(0) : Unsigned<T>(x[i]));
  return (V<T>)out;
}
template <class T>
inline V<T> number_of(V<T> x) {
  return __builtin_convertvector((I<T>)x, V<T>);
}
template <class T>
inline V<T> number_of_unsigned(V<T> x) {
  V<T> out{};
  const Bits<T> bits = (Bits<T>)x;
  for (int i = 0; i < Vector<T>::W; ++i) out[i] = T(bits[i]);
  return out;
}

}  // namespace
