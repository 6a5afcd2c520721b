// Hyperbolic functions and their inverses, by exp and log.
#pragma once
#include "exponential.h"

namespace {

// `y`, but infinite where |x| = a is too large for it, and NaN where x is
template <class T>
inline V<T> limited_by_half(V<T> a, V<T> y) {
  const V<T> most = all<T>(EXP_MOST<T> + LN2<T>);
  return blend<T>((I<T>)(a <= most), y, a + T(__builtin_inf()));
}
template <class T>
inline V<T> hyperbolic_sine(V<T> x) {
  const V<T> a = absolute<T>(x), tiny = all<T>(T(1e-30)), e = quarter_exponential_less_1<T>(a);
  const V<T> y = limited_by_half<T>(a, (e + e / (e * T(4) + T(1))) * T(2));
  return with_sign<T>(blend<T>((I<T>)(a < tiny), a, y), x);
}
template <class T>
inline V<T> hyperbolic_cosine(V<T> x) {
  const V<T> a = absolute<T>(x), e = quarter_exponential_less_1<T>(a) + T(0.25);
  return limited_by_half<T>(a, (e + T(0.0625) / e) * T(2));
}
// From here on, x^2 + 1 and x^2 are the same number.
template <class T>
constexpr T LARGE = sizeof(T) == 4 ? T(1e8) : T(1e17);

template <class T>
inline V<T> hyperbolic_arc_sine(V<T> x) {
  const V<T> a = absolute<T>(x), q = a * a;
  const I<T> is_large = (I<T>)(a > all<T>(LARGE<T>));
  const V<T> more = blend<T>(is_large, V<T>{}, q / (T(1) + root<T>(q + T(1))));
  const V<T> rest = blend<T>(is_large, all<T>(LN2<T>), V<T>{});
  return with_sign<T>(logarithm_of_1_plus<T>(a + more) + rest, x);
}
template <class T>
inline V<T> hyperbolic_arc_cosine(V<T> x) {
  const V<T> t = x - T(1);
  const I<T> is_large = (I<T>)(x > all<T>(LARGE<T>));
  const V<T> more = blend<T>(is_large, V<T>{}, root<T>(t * (t + T(2))));
  const V<T> rest = blend<T>(is_large, all<T>(LN2<T>), V<T>{});
  const V<T> y = logarithm_of_1_plus<T>(t + more) + rest;
  return blend<T>((I<T>)(x < all<T>(T(1))), all<T>(T(__builtin_nan(""))), y);
}
template <class T>
inline V<T> hyperbolic_arc_tangent(V<T> x) {
  const V<T> a = absolute<T>(x);
  return with_sign<T>(logarithm_of_1_plus<T>((a + a) / (T(1) - a)) * T(0.5), x);
}

}  // namespace
