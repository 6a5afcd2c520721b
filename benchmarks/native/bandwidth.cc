// How fast threads read or write arrays of their own: GB/s of all threads together.
// usage: bandwidth read|write THREADS BYTES SECONDS
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "vector.h"

constexpr int64_t EACH = 8, LEAST = 1 << 22;  // vectors in flight; bytes between clocks

std::atomic<int> waiting;

double run(bool writes, int64_t bytes, double seconds) {
  const int64_t n = (bytes + EACH * BYTES - 1) / (EACH * BYTES) * EACH;
  const int64_t times = 1 + LEAST / (n * BYTES);
  V* const a = static_cast<V*>(std::aligned_alloc(4096, (n * BYTES + 4095) / 4096 * 4096));
  if (a == nullptr) std::abort();
  std::memset(static_cast<void*>(a), 0, n * BYTES);
  V sum[EACH] = {}, one = V{} + 1.0f;
  for (--waiting; waiting > 0;) std::this_thread::yield();  // all begin together
  int64_t done = 0;
  const auto start = std::chrono::steady_clock::now();
  std::chrono::duration<double> spent{};
  while (spent.count() < seconds) {
    for (int64_t k = 0; k < times; ++k) {
      if (writes) {
        for (int64_t i = 0; i < n; ++i) a[i] = one;
      } else {
        for (int64_t i = 0; i < n; i += EACH) {
#pragma GCC unroll 8
          for (int64_t j = 0; j < EACH; ++j) sum[j] += a[i + j];
        }
      }
      asm volatile("" : : "r"(a), "r"(sum) : "memory");  // nothing is left out
    }
    done += times;
    spent = std::chrono::steady_clock::now() - start;
  }
  std::free(a);
  return 1e-9 * done * n * BYTES / spent.count();
}

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const bool writes = std::strcmp(argv[1], "write") == 0;
  const int threads = atoi(argv[2]);
  const int64_t bytes = atoll(argv[3]);
  const double seconds = atof(argv[4]);
  std::vector<double> rate(threads);
  std::vector<std::thread> all;
  waiting = threads;
  for (int i = 0; i < threads; ++i)
    all.emplace_back([&, i] { rate[i] = run(writes, bytes, seconds); });
  double sum = 0;
  for (int i = 0; i < threads; ++i) all[i].join(), sum += rate[i];
  printf("%.2f\n", sum);
}
