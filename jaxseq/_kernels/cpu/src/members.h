// Members of a call: runs of one program, each with arrays of its own.
#pragma once
#include <atomic>
#include <exception>

#include "plan.h"

namespace jaxseq {

// A crew of the thread that asks, and nobody else.
struct Alone {
  void all(int64_t n, void (*f)(void*, int64_t), void* argument) {
    for (int64_t i = 0; i < n; ++i) f(argument, i);
  }
};

// Calls run(member, crew, threads) for each of them: those that all threads have as many of
// by one thread each, for this leaves nothing to wait for and its weights in its cache; the
// others by all threads together. Returns null, or why one of them did not run.
template <class Run, class Crew>
const char* run_members(int64_t members, const Run& run, Crew& crew, int64_t threads) {
  struct Each {
    const Run& run;
    std::atomic<const char*> failed{nullptr};
  } each{run};
  auto by_one = [](void* argument, int64_t member) {
    auto& each = *(Each*)argument;
    Alone alone;
    try {
      if (const char* failed = each.run(member, alone, 1)) each.failed = failed;
    } catch (const std::exception&) {
      each.failed = "no memory";
    }
  };
  const int64_t shared = threads > 0 ? members / threads * threads : 0;
  crew.all(shared, by_one, &each);
  for (int64_t m = shared; m < members && !each.failed; ++m)
    if (const char* failed = run(m, crew, threads)) return failed;
  return each.failed;
}

}  // namespace jaxseq
