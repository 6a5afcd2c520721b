// The error function and its complement. The polynomials have the least largest error.
#pragma once
#include "exponential.h"

namespace {

// erf(x) / x - 1, of q = x^2 up to 1
inline V<float> near_zero(V<float> q) {
  static constexpr float c[] = {
      0.12837917f, -0.37612626f, 0.112835854f, -0.026853811f, 0.0051883273f, -0.0008010189f,
      7.853844e-05f,
  };
  return polynomial<float>(q, c);
}
inline V<double> near_zero(V<double> q) {
  static constexpr double c[] = {
      0x1.06eba8214db68p-3, -0x1.812746b0379bdp-2, 0x1.ce2f21a040d16p-4, -0x1.b82ce311fa923p-6,
      0x1.565bccf92af21p-8, -0x1.c02db03dcd737p-11, 0x1.f9a2baa811ea1p-14, -0x1.f4ca4d60d35f4p-17,
      0x1.b97fd34a4de1dp-20, -0x1.5c072380e25bep-23, 0x1.d71af7602ca92p-27, -0x1.abae0294dbe8ep-31,
  };
  return polynomial<double>(q, c);
}
// where |x| is no longer near zero, and where erfc(x) becomes subnormal
template <class T>
constexpr T FAR_FIRST = T(0.46875);
template <class T>
constexpr T FAR_LAST = sizeof(T) == 4 ? T(9.3) : T(26.6);
// exp(x^2) erfc(x), for x between these
inline V<float> far_out(V<float> x) {
  static constexpr float p[] = {1.0000072f, 1.3019191f, 0.8041842f, 0.26632392f, 0.041896094f};
  static constexpr float q[] = {1.0f, 2.4303703f, 2.5462317f, 1.4622546f, 0.47206128f, 0.074258536f};
  return polynomial<float>(x, p) / polynomial<float>(x, q);
}
inline V<double> far_out(V<double> x) {
  static constexpr double p[] = {
      0x1.ffffffffd04bep-1, 0x1.21d6db1a054e7p+1, 0x1.43f016adde1b2p+1, 0x1.cc5d3c86c5274p+0,
      0x1.c6948a953bf6ep-1, 0x1.4285f2eac8316p-2, 0x1.494a3897501eap-4, 0x1.d51fdbc1fba8bp-7,
      0x1.abe6ddd2d1056p-10, 0x1.85e092baf8a3cp-14,
  };
  static constexpr double q[] = {
      1.0, 0x1.b245959b58c9bp+1, 0x1.56fb05cab2d2fp+2, 0x1.4d1c871aabd27p+2, 0x1.ba1e3e71f0058p+1,
      0x1.a4bae2013ffbdp+0, 0x1.24485f6112b78p-1, 0x1.26c9ca1b5f432p-3, 0x1.a119b3fd6fc46p-6,
      0x1.7b37d678d6f89p-9, 0x1.59850b808d503p-13,
  };
  return polynomial<double>(x, p) / polynomial<double>(x, q);
}

// erfc(x) for x >= FAR_FIRST. x^2 has more bits than a number: it is h^2, where h has
// half of the bits of x, and a small rest.
template <class T>
inline V<T> error_left(V<T> x) {
  constexpr int HALF = Of<T>::MANTISSA / 2 + 1;
  x = within<T>(FAR_FIRST<T>, x, FAR_LAST<T>);
  const V<T> h = (V<T>)((typename Vector<T>::U)x >> HALF << HALF);
  V<T> bits;
  const V<T> n = whole<T>(-(x * x), &bits, Of<T>::BIAS);
  const V<T> r = (-(h * h) - n * LN2_HIGH<T>) + ((h - x) * (h + x) - n * LN2_LOW<T>);
  const V<T> y = far_out(x), e = (y + y * series(r)) * (V<T>)exponent<T>(bits);
  return blend<T>((I<T>)(x >= all<T>(FAR_LAST<T>)), V<T>{}, e);
}
template <class T>
inline V<T> error(V<T> x) {
  const V<T> a = absolute<T>(x), y = a * (near_zero(a * a) + T(1));
  return with_sign<T>(blend<T>((I<T>)(a < all<T>(T(1))), y, T(1) - error_left<T>(a)), x);
}
template <class T>
inline V<T> error_complement(V<T> x) {
  const V<T> a = absolute<T>(x), y = x + x * near_zero(x * x), left = error_left<T>(a);
  const V<T> far = blend<T>((I<T>)(x < V<T>{}), T(2) - left, left);
  return blend<T>((I<T>)(a < all<T>(FAR_FIRST<T>)), T(1) - y, far);
}

}  // namespace
