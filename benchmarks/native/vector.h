// The widest vectors of float32 that this is compiled for.
#pragma once

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
typedef float V __attribute__((vector_size(BYTES)));
