// Runs cases that `cases.py` has written by the native kernels, without XLA, so that
// sanitizers see them: on one thread and on several, several calls at once, with programs
// in which a number is wrong, and with memory refused.
//
//   harness MUTATIONS CALLS FILE...
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>

#include "failing.h"  // first: it takes the place of what the kernels call

#include "arrays.h"
#include "crew.h"
#include "kernel.cc"
#ifdef __AVX512BF16__
#include "pairs.cc"
constexpr jaxseq::OfPairs pairs_here = {product_of_pairs, sums_of_pairs};
#else
constexpr jaxseq::OfPairs pairs_here = {};
#endif
#include "members.h"
#include "pool.h"
#include "read_call.h"
#include "read_gradients.h"

namespace {

std::vector<Buffer> buffers(const std::vector<Array_>& all) {
  std::vector<Buffer> out;
  for (const Array_& a : all) out.push_back(a.buffer());
  return out;
}

// A call of these arrays, with what is said in a case.
const char* run(const std::vector<Array_>& in, const std::vector<Array_>& out, const Case& c, Pool& pool) {
  jaxseq::Crew<Pool> crew(pool);
  const jaxseq::Members members{c.members, c.own, c.said.empty() ? size_t(3) : 0};
  auto call = [&](const auto& make, const auto& run) {
    return jaxseq::run_call({buffers(in), buffers(out)}, members, make, run, crew, pool.num_threads());
  };
  if (!c.said.empty()) {
    const jaxseq::Said s{c.said[0], c.said[1], c.said[2], c.said[3], c.said[4]};
    return call([&](const jaxseq::Arrays& a) { return jaxseq::GradientsRequest(a.arguments, a.results, s); },
                [](const auto& request, auto& crew, int64_t threads) {
                  return request.run(NAME, crew, threads, pairs_here.sums);
                });
  }
  return call([](const jaxseq::Arrays& a) { return jaxseq::Request(a.arguments, a.results); },
              [](const auto& request, auto& crew, int64_t threads) {
                return request.run(NAME, crew, threads, pairs_here.products);
              });
}

// Results, some of which may have taken the memory of arguments.
std::vector<Array_> results(const Case& c, Pool& pool, bool over, const char** failed) {
  std::vector<Array_> in, out;
  for (const Array_& a : c.arguments) in.push_back(over ? a.copy() : a);
  for (const Array_& a : c.results) out.push_back(a.like());
  for (auto [argument, result] : c.over)
    if (over) out[result].data = in[argument].data;
  *failed = run(in, out, c, pool);
  return out;
}

int failures = 0;
void check(bool ok, const char* name, const char* what) {
  if (!ok) ++failures, std::printf("%s: %s\n", name, what);
}

bool same(const std::vector<Array_>& a, const std::vector<Array_>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (!same(a[i], b[i])) return false;
  return true;
}

// A call by itself, then several at once, which give the same bits.
void several(const char* name, const Case& c, Pool& pool, int calls) {
  const char* failed = nullptr;
  const std::vector<Array_> first = results(c, pool, false, &failed);
  check(!failed, name, "it did not run");
  for (size_t i = 0; i < first.size(); ++i)
    check(near(c, i, first[i]), name, "a result is not what it was");
  check(same(first, results(c, pool, true, &failed)), name, "in the memory of arguments it differs");
  if (!calls) return;
  std::vector<std::thread> callers;
  std::atomic<int> unlike{0};
  for (int t = 0; t < 3; ++t)
    callers.emplace_back([&, t] {
      const char* failed = nullptr;
      for (int k = 0; k < calls; ++k) unlike += !same(results(c, pool, (t + k) % 2, &failed), first) || failed;
    });
  for (std::thread& t : callers) t.join();
  check(unlike == 0, name, "calls at once differ");
}

// Unlike calls at once, each caller's in an order of its own.
void together(const std::vector<Case>& cases, Pool& pool) {
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (size_t t = 0; t < 4; ++t)
    callers.emplace_back([&, t] {
      const char* failed = nullptr;
      for (size_t k = 0; k < cases.size(); ++k) {
        const Case& c = cases[(t % 2 ? cases.size() - 1 - k : k + t * 5) % cases.size()];
        const std::vector<Array_> out = results(c, pool, t % 2, &failed);
        for (size_t i = 0; i < out.size(); ++i) wrong += failed || !near(c, i, out[i]);
      }
    });
  for (std::thread& t : callers) t.join();
  check(wrong == 0, "all", "unlike calls at once differ");
}

// Numbers, shapes or types of a call changed at random.
class Mutation {
 public:
  explicit Mutation(const Case& c) : case_(c), in_(c.arguments.size()) {
    for (const Array_& a : c.arguments) all_.push_back(a.copy());
    for (const Array_& a : c.results) all_.push_back(a.like());
  }
  int64_t numbers() const {
    return case_.said.empty() ? all_[0].elements() + all_[1].elements() : int64_t(case_.said.size()) - 1;
  }
  // a number of the plan or of the code, by its place in both, or of what is said
  void number(int64_t at) {
    if (!case_.said.empty()) {
      int64_t& x = case_.said[at];
      const int64_t values[] = {0, 1, 2, 3, -1, below(64), 61, 62, INT64_MAX, INT64_MIN, x ^ (1 << below(4))};
      x = values[below(11)];
      return;
    }
    Array_& a = all_[at >= all_[0].elements()];
    int32_t& x = ((int32_t*)a.data.get())[at - (&a == &all_[1] ? all_[0].elements() : 0)];
    const int32_t up = uint32_t(x) + 1, down = uint32_t(x) - 1, few = below(32), op = below(jaxseq::OPERATIONS + 1);
    const int32_t values[] = {0, 1, -1, 2, 3, up, down, few, few, op, 255, 1 << 20, INT32_MAX, INT32_MIN};
    x = values[below(14)];
  }
  // how many members there are, or which arrays have them
  void members() {
    if (case_.own.empty() || below(3) == 0) {
      const int64_t values[] = {0, 1, 2, -1, below(8), INT64_MAX, INT64_MIN};
      case_.members = values[below(7)];
    } else if (below(4) == 0) {
      case_.own.pop_back();
    } else {
      case_.own[below(case_.own.size())] ^= 1;
    }
  }
  void array() {
    const size_t at = below(all_.size());
    if (below(4) == 0) {
      all_.erase(all_.begin() + at), in_ -= at < in_;
      return;
    }
    Array_ a{all_[at].type, all_[at].sizes, all_[at].data};
    if ((at >= 3 || !case_.said.empty()) && !a.sizes.empty() && below(4) == 0) {  // larger than its memory
      a.sizes[below(a.sizes.size())] = int64_t(1) << (20 + below(43));
      all_[at] = a;
      return;
    }
    if (below(3) == 0 || a.sizes.empty()) a.type = Type(below(7));
    else a.sizes[below(a.sizes.size())] = below(9);
    a = a.like();
    std::fill_n(a.data.get(), a.bytes(), 0);
    all_[at] = a;
  }
  const char* run(Pool& pool) const {
    return ::run({all_.begin(), all_.begin() + in_}, {all_.begin() + in_, all_.end()}, case_, pool);
  }
  static int64_t below(int64_t n) {
    static std::mt19937 random(0);
    return int64_t(random() % uint64_t(n));
  }

 private:
  Case case_;
  std::vector<Array_> all_;  // first the arguments
  size_t in_;
};

// It throws, or it runs; every number of the program is wrong in some, one after another.
void mutated(const Case& c, int times, Pool& pool, int* thrown) {
  for (int64_t k = 0; k < times; ++k) {
    Mutation m(c);
    const int64_t numbers = m.numbers();
    const int64_t kind = m.below(8);
    if (kind != 0 && kind != 4) m.number(k % numbers);
    if (kind == 4) m.members();
    if (kind == 1 || kind == 2) m.number(m.below(numbers));
    try {
      if (kind == 0 || kind == 3) m.array();
      m.run(pool);
    } catch (const std::exception&) {
      ++*thrown;
    }
  }
}

// A call for which memory is refused at one place, at every one in turn, or from there on:
// it says so, or does without; afterwards it runs. Each time its threads are new ones.
int without_memory(const char* name, const Case& c) {
  const char* failed = nullptr;
  int refused = 0;
  for (bool once : {true, false})
    for (int64_t k = 0;; ++k) {
      Pool pool(4);
      bool is_short = false;
      std::vector<Array_> out;
      std::thread([&] {
        for (const Array_& a : c.results) out.push_back(a.like());
        try {
          failing::after(k, once);
          failed = run(c.arguments, out, c, pool);
        } catch (const std::bad_alloc&) {
          failed = jaxseq::NO_MEMORY;
        }
        is_short = failing::end();
        if (!failed)
          for (size_t i = 0; i < out.size(); ++i) check(near(c, i, out[i]), name, "differs without memory");
        results(c, pool, false, &failed);
        check(!failed, name, "it does not run when there is memory again");
      }).join();
      refused += is_short;
      if (!is_short) break;
    }
  return refused;
}

}  // namespace

int main(int argc, char** argv) {
  const int mutations = std::atoi(argv[1]), calls = std::atoi(argv[2]);
  int thrown = 0, made = 0, refused = 0;
  Pool one(1), two(2), many(8);
  std::vector<Case> cases;
  for (int i = 3; i < argc; ++i) {
    cases.push_back(read(argv[i]));
    const Case& c = cases.back();
    for (Pool* pool : {&one, &two, &many}) several(argv[i], c, *pool, calls);
    int64_t bytes = 0;
    for (const Array_& a : c.arguments) bytes += a.bytes();
    const int times = mutations * 100000 / (100000 + bytes);
    mutated(c, times, two, &thrown), made += times;
    if (mutations) refused += without_memory(argv[i], c);
  }
  check(!mutations || failing::kernels, "memory", "was refused to no kernel");
  if (calls)
    for (Pool* pool : {&one, &two, &many}) together(cases, *pool);
  std::printf("%zu calls, %d wrong ones of which %d refused, %d without memory, %d failures\n", cases.size(), made,
              thrown, refused, failures);
  return failures != 0;
}
