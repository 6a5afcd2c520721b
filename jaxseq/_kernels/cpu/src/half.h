// Numbers of 16 bits in memory. They are computed with as float32, and rounded to the
// nearest, to even where two are as near, when they are written.
#pragma once
#include "plan.h"
#include "vector.h"
#if defined(__F16C__) && VECTOR_BYTES > 16
#define HAS_FLOAT16
#include <immintrin.h>
#endif

namespace {

using jaxseq::Ref;

struct Bfloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

typedef typename Vector<float>::U Words;
typedef typename Vector<float>::I Truths;
constexpr int WORDS = Vector<float>::W;
typedef uint16_t Halves __attribute__((vector_size(VECTOR_BYTES / 2), aligned(2), may_alias));

inline Words words(const void* halves) { return __builtin_convertvector(*(const Halves*)halves, Words); }
inline Words chosen(Truths m, Words a, Words b) { return (Words(m) & a) | (~Words(m) & b); }

inline V<float> widened(Bfloat16, Words h) { return (V<float>)(h << 16); }
#ifdef HAS_FLOAT16
inline V<float> wide(const Float16* p) {
#if VECTOR_BYTES == 64
  return (V<float>)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#else
  return (V<float>)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#endif
}
inline V<float> widened(Float16, Words h) {
  const Halves some = __builtin_convertvector(h, Halves);
  return wide((const Float16*)&some);
}
#else
inline V<float> widened(Float16, Words h) {
  const Words body = (h & 0x7fff) << 13, exponent = body & (0x7c00u << 13);
  Words f = body + (112u << 23);  // the exponent counts from 15 there, from 127 here
  f = chosen((Truths)(exponent == (0x7c00u << 13)), f + (112u << 23), f);  // Inf or NaN
  // without a leading 1, which is added and taken away: no float32 here is subnormal
  const V<float> least = (V<float>)(f + (1u << 23)) - 0x1p-14f;
  f = chosen((Truths)(exponent == 0), (Words)least, f);
  return (V<float>)(f | (h & 0x8000) << 16);
}
#endif

inline Words narrowed(Bfloat16, V<float> x) {
  const Words f = (Words)x, h = (f + 0x7fff + (f >> 16 & 1)) >> 16;
  return chosen((Truths)(x != x), f >> 16 | 0x40, h);
}
#ifdef HAS_FLOAT16
inline Words narrowed(Float16, V<float> x) {
#if VECTOR_BYTES == 64
  const auto h = _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#else
  const auto h = _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
#endif
  return __builtin_convertvector((Halves)h, Words);
}
#else
inline Words narrowed(Float16, V<float> x) {
  const Words sign = (Words)x & 0x80000000u, f = (Words)x ^ sign;
  Words h = (f - (112u << 23) + 0xfff + (f >> 13 & 1)) >> 13;
  // the sum with 0.5 has the bits of a subnormal number at its end, rounded
  const Words least = (Words)((V<float>)f + 0.5f) - (126u << 23);
  h = chosen((Truths)(f < (113u << 23)), least, h);
  h = chosen((Truths)(f >= (143u << 23)), chosen((Truths)(x != x), Words{} + 0x7e00, Words{} + 0x7c00), h);
  return h | sign >> 16;
}
#endif

template <class S>
inline V<float> rounded(V<float> x) {
  return widened(S{}, narrowed(S{}, x));
}
template <class S>
inline V<double> rounded(V<double> x) {
  return x;  // no program of float64 has it
}

// The second argument keeps GCC 10 from asking for vectors of the types below.
template <class T, class = typename Of<T>::Int>
inline V<T> load_wide(const T* p) {
  return load(p);
}
template <class S>
inline V<float> wide(const S* p) {
  return widened(S{}, words(p));
}
inline V<float> load_wide(const Bfloat16* p) { return wide(p); }
inline V<float> load_wide(const Float16* p) { return wide(p); }

inline float number(Bfloat16 h) { return widened(h, Words{} + h.bits)[0]; }
inline float number(Float16 h) { return widened(h, Words{} + h.bits)[0]; }
inline float number(float x) { return x; }
inline double number(double x) { return x; }

inline void copy(const float* from, float* to, int64_t n) { memcpy(to, from, n * sizeof(float)); }
inline void copy(const double* from, double* to, int64_t n) { memcpy(to, from, n * sizeof(double)); }
template <class S>
inline void copy(const S* from, float* to, int64_t n) {
  for (; n >= WORDS; n -= WORDS, from += WORDS, to += WORDS) store<float>(to, wide(from));
  for (int64_t j = 0; j < n; ++j) to[j] = number(from[j]);
}
template <class S>
inline void copy(const float* from, S* to, int64_t n) {
  for (; n >= WORDS; n -= WORDS, from += WORDS, to += WORDS)
    *(Halves*)to = __builtin_convertvector(narrowed(S{}, load(from)), Halves);
  float rest[WORDS] = {};
  copy(from, rest, n);
  const auto last = __builtin_convertvector(narrowed(S{}, load(rest)), Halves);
  memcpy(to, &last, n * sizeof(S));
}

template <class T>
constexpr jaxseq::Type type_of() {
  return sizeof(T) == 4 ? jaxseq::FLOAT32 : jaxseq::FLOAT64;
}

// f(an S), where S is what an array has; with float64 there is nothing else.
template <class T, class F>
inline void by_type(jaxseq::Type type, F f) {
  if constexpr (sizeof(T) == 4) {
    if (type == jaxseq::BFLOAT16) return f(Bfloat16{});
    if (type == jaxseq::FLOAT16) return f(Float16{});
  }
  f(T{});
}

// n elements of an array, and to one.
template <class T>
inline void read(Ref from, T* to, int64_t n) {
  by_type<T>(from.type, [&](auto s) { copy((const decltype(s)*)from.data, to, n); });
}
template <class T>
inline void write(const T* from, Ref to, int64_t n) {
  by_type<T>(to.type, [&](auto s) { copy(from, (decltype(s)*)to.data, n); });
}

// The same number in another place, as one of the type.
template <class T>
inline void round_to(jaxseq::Type type, const T* from, T* to, int64_t n) {
  by_type<T>(type, [&](auto s) {
    typedef decltype(s) S;
    if constexpr (sizeof(S) == sizeof(T)) {
      copy(from, to, n);
    } else {
      S some[WORDS];
      for (int64_t j = 0; j < n; j += WORDS) {
        copy(from + j, some, least(WORDS, n - j));
        copy(some, to + j, least(WORDS, n - j));
      }
    }
  });
}

}  // namespace
