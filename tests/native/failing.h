// Memory that is refused on purpose, to the kernels and to what is made of C++'s own
// containers.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace failing {

inline std::atomic<int64_t> before{INT64_MAX};  // how often memory is still given
inline std::atomic<bool> only_once{false}, happened{false};
inline std::atomic<bool> kernels{false};  // whether one of them has ever been refused memory

inline void after(int64_t times, bool once) { only_once = once, happened = false, before = times; }
// Whether memory has been refused since.
inline bool end() {
  before = INT64_MAX;
  return happened;
}
inline bool now() {
  const int64_t left = before.fetch_sub(1);
  const bool is = only_once ? left == 0 : left <= 0;
  if (is) happened = true;
  return is;
}
inline void* given(void* p) {
  if (!p) throw std::bad_alloc();
  return p;
}
inline void* allocated(size_t bytes) { return given(now() ? nullptr : malloc(bytes)); }
inline void* allocated(size_t bytes, size_t align) {
  return given(now() ? nullptr : std::aligned_alloc(align, (bytes + align - 1) / align * align));
}
inline void* pages(size_t align, size_t bytes) {
  if (!now()) return std::aligned_alloc(align, bytes);
  kernels = true;
  return nullptr;
}

}  // namespace failing

void* operator new(size_t n) { return failing::allocated(n); }
void* operator new[](size_t n) { return failing::allocated(n); }
void* operator new(size_t n, std::align_val_t a) { return failing::allocated(n, size_t(a)); }
void* operator new[](size_t n, std::align_val_t a) { return failing::allocated(n, size_t(a)); }
void operator delete(void* p) noexcept { free(p); }
void operator delete[](void* p) noexcept { free(p); }
void operator delete(void* p, size_t) noexcept { free(p); }
void operator delete[](void* p, size_t) noexcept { free(p); }
void operator delete(void* p, std::align_val_t) noexcept { free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { free(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { free(p); }

#define aligned_alloc failing::pages
