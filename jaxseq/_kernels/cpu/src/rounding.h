// Functions that round to integers, and what a division leaves; all of them exact.
#pragma once
#include "math.h"

namespace {

// from here on, numbers have no fraction
template <class T>
constexpr T WHOLE = T(uint64_t(1) << Of<T>::MANTISSA);

// to even where two are as near
template <class T>
inline V<T> round_to_even(V<T> x) {
  const V<T> a = absolute<T>(x), sum = a + WHOLE<T>;
  return with_sign<T>(blend<T>((I<T>)(a < all<T>(WHOLE<T>)), sum - WHOLE<T>, a), x);
}
template <class T>
inline V<T> round_down(V<T> x) {
  const V<T> y = round_to_even<T>(x);
  return blend<T>((I<T>)(y > x), y - T(1), y);
}
template <class T>
inline V<T> round_up(V<T> x) {
  const V<T> y = round_to_even<T>(x);
  return with_sign<T>(blend<T>((I<T>)(y < x), y + T(1), y), x);  // -0 of what is above -1
}
// away from zero where two are as near
template <class T>
inline V<T> round_away(V<T> x) {
  const V<T> a = absolute<T>(x), y = round_down<T>(a);
  return with_sign<T>(blend<T>((I<T>)(a - y >= all<T>(T(0.5))), y + T(1), y), x);
}

// What x / y leaves when it is rounded toward zero, with the sign of x. A quotient of fewer
// bits than a number has is rounded to the right integer or to the next, so one sum gives
// the rest or the rest less |y|, both of which are numbers.
template <class T>
inline V<T> division_rest(V<T> x, V<T> y) {
  auto of_two = [](T a, T b) { return sizeof(T) == 4 ? T(__builtin_fmodf(a, b)) : T(__builtin_fmod(a, b)); };
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  const V<T> a = absolute<T>(x), b = absolute<T>(y), q = a / b;
  const I<T> is_far = (I<T>)(q >= all<T>(WHOLE<T>)) & (I<T>)(a < all<T>(T(__builtin_inf()))) & (I<T>)(b > V<T>{});
  if (any<T>(is_far)) return pairs<T>(x, y, of_two);
  V<T> r = multiplied<T>(-round_down<T>(q), b, a);
  r = blend<T>((I<T>)(r < V<T>{}), r + b, r);
  return with_sign<T>(blend<T>((I<T>)(q < all<T>(T(1))), a, r), x);  // also where y is infinite
#else
  return pairs<T>(x, y, of_two);
#endif
}

}  // namespace
