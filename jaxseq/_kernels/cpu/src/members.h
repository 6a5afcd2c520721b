// Members of a call: runs of one program, each with arrays of its own.
#pragma once
#include <atomic>
#include <exception>
#include <string_view>

#include "read_call.h"

namespace jaxseq {

// How many members there are, or -1, and of each argument whether they are in front of it,
// in zeros and ones. All results have them, and the first arguments, a program, do not.
struct Members {
  int64_t number = -1;
  std::string_view own{};
  size_t program = 0;
};

struct Arrays {
  std::vector<Buffer> arguments, results;
};

// A crew of the thread that asks, and nobody else.
struct Alone {
  void all(int64_t n, void (*f)(void*, int64_t), void* argument) {
    for (int64_t i = 0; i < n; ++i) f(argument, i);
  }
};

// What a member has of an array.
inline Buffer of_member(Buffer b, int64_t members, int64_t member) {
  require(b.given.rank > 0 && b.given.at(0) == members, "an array has another number of members");
  ++b.given.sizes, --b.given.rank;
  if (member > 0) b.given.data = b.given.data.at(b.elements() * member);
  return b;
}
inline Arrays of_member(Arrays a, const Members& all, int64_t member) {
  if (all.number < 0) return a;
  require(all.own.size() == a.arguments.size(), "arguments and members differ in number");
  require(all.own.find('1') >= all.program, "each member has a program of its own");
  for (size_t i = 0; i < a.arguments.size(); ++i)
    if (all.own[i] == '1') a.arguments[i] = of_member(a.arguments[i], all.number, member);
  for (Buffer& b : a.results) b = of_member(b, all.number, member);
  return a;
}

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
      each.failed = NO_MEMORY;
    }
  };
  const int64_t shared = threads > 0 ? members / threads * threads : 0;
  crew.all(shared, by_one, &each);
  for (int64_t m = shared; m < members && !each.failed; ++m)
    if (const char* failed = run(m, crew, threads)) return failed;
  return each.failed;
}

// Makes a request of the arrays of each member, or of all arrays, and runs it. Throws what
// is wrong with them, and returns null, or why it did not run.
template <class Make, class Run, class Crew>
const char* run_call(const Arrays& arrays, const Members& all, const Make& make, const Run& run, Crew& crew,
                     int64_t threads) {
  const Arrays one_of = of_member(arrays, all, 0);
  if (all.number == 0) return nullptr;  // its arrays may have no memory
  const auto first = make(one_of);  // the others have the same shapes
  if (all.number < 0) return run(first, crew, threads);
  auto one = [&](int64_t member, auto& crew, int64_t threads) {
    return run(make(of_member(arrays, all, member)), crew, threads);
  };
  return run_members(all.number, one, crew, threads);
}

}  // namespace jaxseq
