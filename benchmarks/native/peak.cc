// The most fused multiply-adds of this processor: GFLOP/s by threads.
// usage: peak THREADS SECONDS
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "vector.h"

constexpr int SUMS = 12, TIMES = 100000;  // more sums than an addition takes cycles

// keeps values in registers, and from being known
#define OPAQUE(v) asm volatile("" : "+x"(v))
#if !defined(__x86_64__)
#undef OPAQUE
#define OPAQUE(v) asm volatile("" : "+w"(v))
#endif

double run(double seconds) {
  V sum[SUMS] = {}, a = V{} + 1e-3f, b = V{} + 1e-3f;
  int64_t done = 0;
  const auto start = std::chrono::steady_clock::now();
  std::chrono::duration<double> spent{};
  while (spent.count() < seconds) {
    for (int i = 0; i < TIMES; ++i) {
      OPAQUE(a);
      OPAQUE(b);
#pragma GCC unroll 12
      for (int k = 0; k < SUMS; ++k) sum[k] = a * b + sum[k];
    }
    done += TIMES;
    spent = std::chrono::steady_clock::now() - start;
  }
  for (int k = 0; k < SUMS; ++k) OPAQUE(sum[k]);
  return 2.0 * done * SUMS * (BYTES / sizeof(float)) / spent.count() / 1e9;
}

int main(int argc, char** argv) {
  const int threads = argc > 1 ? atoi(argv[1]) : 1;
  const double seconds = argc > 2 ? atof(argv[2]) : 1;
  std::vector<double> rate(threads);
  std::vector<std::thread> all;
  for (int i = 0; i < threads; ++i) all.emplace_back([&, i] { rate[i] = run(seconds); });
  double sum = 0;
  for (int i = 0; i < threads; ++i) all[i].join(), sum += rate[i];
  printf("%.1f\n", sum);
}
