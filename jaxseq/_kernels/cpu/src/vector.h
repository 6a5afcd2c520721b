// Vectors of as many bytes as the processor has, and memory for them. All of it is in
// an unnamed namespace: each set of instructions has its own.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#ifdef __linux__
#include <sys/mman.h>
#endif

#ifndef VECTOR_BYTES
#define VECTOR_BYTES 16
#endif

namespace {

template <class T>
struct Of;
template <>
struct Of<float> {
  typedef int32_t Int;
  typedef uint32_t Unsigned;
  static constexpr int MANTISSA = 23, BIAS = 127;
};
template <>
struct Of<double> {
  typedef int64_t Int;
  typedef uint64_t Unsigned;
  static constexpr int MANTISSA = 52, BIAS = 1023;
};

template <class T>
struct Vector {
  static constexpr int W = VECTOR_BYTES / sizeof(T);
  typedef T V __attribute__((vector_size(VECTOR_BYTES)));
  typedef T Unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  typedef typename Of<T>::Int I __attribute__((vector_size(VECTOR_BYTES)));
  typedef typename Of<T>::Unsigned U __attribute__((vector_size(VECTOR_BYTES)));
};
template <class T>
using V = typename Vector<T>::V;
template <class T>
using I = typename Vector<T>::I;

template <class T>
inline V<T> load(const T* p) {
  return *(const typename Vector<T>::Unaligned*)p;
}
template <class T>
inline void store(T* p, V<T> v) {
  *(typename Vector<T>::Unaligned*)p = v;
}

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t over(int64_t n, int64_t m) { return (n + m - 1) / m; }

// Asks for large pages where fresh memory is large: each page costs a fault.
inline void widen(void* p, size_t bytes) {
#ifdef __linux__
  constexpr uintptr_t PAGE = uintptr_t(1) << 21;
  const uintptr_t first = ((uintptr_t)p + PAGE - 1) / PAGE * PAGE, last = ((uintptr_t)p + bytes) / PAGE * PAGE;
  if (p && last > first) madvise((void*)first, last - first, MADV_HUGEPAGE);
#else
  (void)p, (void)bytes;
#endif
}

// Memory that grows, is filled with zeros when it is taken, and is kept for the next time.
class Memory {
 public:
  ~Memory() { free(data_); }
  template <class T>
  T* take(int64_t n, bool clear = true) {
    size_t bytes = (n * sizeof(T) + 4095) / 4096 * 4096 + 4096;
    if (bytes > bytes_) {
      free(data_);
      data_ = aligned_alloc(4096, bytes);
      bytes_ = data_ ? bytes : 0;
      widen(data_, bytes_);
    }
    if (data_ && clear) memset(data_, 0, bytes);
    return (T*)data_;
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace
