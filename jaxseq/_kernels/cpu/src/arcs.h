// Angles of their functions. The polynomials have the least largest error.
#pragma once
#include "math.h"

namespace {

// (atan(t) - t) / t^3, of q = t^2 for |t| <= 1/2
inline V<float> arc_series(V<float> q) {
  static constexpr float c[] = {-0.33333236f, 0.1999432f, -0.14176136f, 0.101653725f, -0.051413845f};
  return polynomial<float>(q, c);
}
inline V<double> arc_series(V<double> q) {
  static constexpr double c[] = {
      -0x1.5555555555518p-2, 0x1.99999999914cap-3, -0x1.249249216fa0fp-3, 0x1.c71c709678fadp-4,
      -0x1.745cf54d06e4fp-4, 0x1.3b11453275609p-4, -0x1.10f366af3b11fp-4, 0x1.dfed0b484710fp-5,
      -0x1.a3a7788721546p-5, 0x1.571dffbe42264p-5, -0x1.c1fb06ac66af6p-6, 0x1.4c2903dfa20b7p-7,
  };
  return polynomial<double>(q, c);
}
// pi / 4 in two parts
template <class T>
constexpr T EIGHTH_HIGH = sizeof(T) == 4 ? T(0x1.921fb6p-1) : T(0x1.921fb54442d18p-1);
template <class T>
constexpr T EIGHTH_LOW = sizeof(T) == 4 ? T(-0x1.777a5cp-26) : T(0x1.1a62633145c07p-55);

// The angle of the point (x, y), as n pi / 4 + r.
template <class T>
inline V<T> angle(V<T> y, V<T> x) {
  const V<T> a = absolute<T>(y), b = absolute<T>(x), one = all<T>(T(1));
  const I<T> is_steep = (I<T>)(a > b), is_left = (I<T>)x < I<T>{};
  V<T> t = blend<T>(is_steep, b, a) / blend<T>(is_steep, a, b);
  t = blend<T>((I<T>)(a == b), blend<T>((I<T>)(a > V<T>{}), one, a), t);  // of zeros, or infinite
  const I<T> is_wide = (I<T>)(t > all<T>(T(0.5)));
  t = blend<T>(is_wide, (t - T(1)) / (t + T(1)), t);
  const V<T> q = t * t;
  V<T> r = t + t * (q * arc_series(q)), n = blend<T>(is_wide, one, V<T>{});
  r = blend<T>(is_steep, -r, r), n = blend<T>(is_steep, T(2) - n, n);
  r = blend<T>(is_left, -r, r), n = blend<T>(is_left, T(4) - n, n);
  return with_sign<T>(n * EIGHTH_HIGH<T> + (n * EIGHTH_LOW<T> + r), y);
}
template <class T>
inline V<T> arc_tangent(V<T> x) {
  return angle<T>(x, all<T>(T(1)));
}
// sqrt(1 - x^2)
template <class T>
inline V<T> other_leg(V<T> x) {
  const V<T> a = absolute<T>(x);
  return root<T>(blend<T>((I<T>)(a < all<T>(T(0.5))), T(1) - a * a, (T(1) - a) * (T(1) + a)));
}
template <class T>
inline V<T> arc_sine(V<T> x) {
  return angle<T>(x, other_leg<T>(x));
}
template <class T>
inline V<T> arc_cosine(V<T> x) {
  return angle<T>(other_leg<T>(x), x);
}

}  // namespace
