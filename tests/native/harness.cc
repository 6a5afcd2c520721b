// Runs cases that `cases.py` has written by the native kernels, without XLA, so that
// sanitizers see them: on one thread and on several, several calls at once, and with
// programs in which a number is wrong.
//
//   harness MUTATIONS CALLS FILE...
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <random>

#include "crew.h"
#include "kernel.cc"
#include "pool.h"
#include "read.h"

namespace {

using jaxseq::Buffer;
using jaxseq::Type;

// Each array has memory of its own, no larger than it is.
struct Array_ {
  Type type;
  std::vector<int64_t> sizes;
  std::unique_ptr<char[]> data;
  int64_t elements() const {
    int64_t n = 1;
    for (int64_t s : sizes) n *= s;
    return n;
  }
  int64_t bytes() const { return elements() * (type == jaxseq::FLOAT64 ? 8 : type == jaxseq::BOOL ? 1 : 4); }
  Buffer buffer() const { return {type, {sizes.data(), int64_t(sizes.size()), data.get()}}; }
  Array_ like() const {
    Array_ a{type, sizes, std::unique_ptr<char[]>(new char[bytes()])};
    return a;
  }
  Array_ copy() const {
    Array_ a = like();
    std::copy_n(data.get(), bytes(), a.data.get());
    return a;
  }
};

struct Case {
  std::vector<Array_> arguments, results;
};

int64_t number(std::ifstream& f) {
  int64_t n = 0;
  f.read((char*)&n, 8);
  return n;
}

std::vector<Array_> arrays(std::ifstream& f) {
  std::vector<Array_> all(number(f));
  for (Array_& a : all) {
    a.type = Type(number(f));
    a.sizes.resize(number(f));
    for (int64_t& s : a.sizes) s = number(f);
    a = a.like();
    f.read(a.data.get(), a.bytes());
  }
  return all;
}

Case read(const char* name) {
  std::ifstream f(name, std::ios::binary);
  f.exceptions(std::ifstream::failbit);
  Case c;
  c.arguments = arrays(f), c.results = arrays(f);
  return c;
}

std::vector<Buffer> buffers(const std::vector<Array_>& all) {
  std::vector<Buffer> out;
  for (const Array_& a : all) out.push_back(a.buffer());
  return out;
}

std::vector<Array_> fresh(const Case& c) {
  std::vector<Array_> out;
  for (const Array_& a : c.results) out.push_back(a.like());
  return out;
}

const char* run(const Case& c, const std::vector<Array_>& out, Pool& pool) {
  const jaxseq::Request request(buffers(c.arguments), buffers(out));
  jaxseq::Crew<Pool> crew(pool);
  return request.run(NAME, crew, pool.num_threads());
}

template <class T>
bool near(const Array_& a, const Array_& b) {
  const T *x = (const T*)a.data.get(), *y = (const T*)b.data.get();
  for (int64_t i = 0; i < a.elements(); ++i) {
    const T most = (sizeof(T) == 4 ? T(1e-4) : T(1e-11)) * (1 + std::abs(y[i]));
    if (!(std::abs(x[i] - y[i]) <= most) && !(std::isnan(x[i]) && std::isnan(y[i])) && x[i] != y[i]) return false;
  }
  return true;
}

int failures = 0;
void check(bool ok, const char* name, const char* what) {
  if (!ok) ++failures, std::printf("%s: %s\n", name, what);
}

void right(const char* name, const Case& c, const std::vector<Array_>& out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const bool single = out[i].type == jaxseq::FLOAT32;
    check(single ? near<float>(out[i], c.results[i]) : near<double>(out[i], c.results[i]), name,
          "a result is not what it was");
  }
}

bool same(const std::vector<Array_>& a, const std::vector<Array_>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (memcmp(a[i].data.get(), b[i].data.get(), a[i].bytes())) return false;
  return true;
}

// Wrong numbers in the plan, the code, the shapes or the types: it throws, or it runs.
void mutated(const Case& c, int times, Pool& pool, int* thrown) {
  std::mt19937 random(0);
  auto below = [&](int64_t n) { return int64_t(random() % uint64_t(n)); };
  for (int k = 0; k < times; ++k) {
    Case m;
    for (const Array_& a : c.arguments) m.arguments.push_back(a.copy());
    std::vector<Array_> out = fresh(c);
    for (int64_t n = 1 + below(2); n > 0; --n) {
      std::vector<Array_>& some = below(4) ? m.arguments : out;
      const int64_t which = below(2) ? below(2) : below(some.size());
      Array_& a = some[which % some.size()];
      if (a.type == jaxseq::INT32 && a.elements() > 0) {
        int32_t& x = ((int32_t*)a.data.get())[below(a.elements())];
        const int32_t up = uint32_t(x) + 1, down = uint32_t(x) - 1;
        const int32_t values[] = {0, 1, -1, 2, up, down, 255, 1 << 20, INT32_MAX, INT32_MIN, int32_t(below(32))};
        x = values[below(11)];
      } else if (below(3) == 0) {
        a.type = Type(below(5));
        a = a.like();
        std::fill_n(a.data.get(), a.bytes(), 0);
      } else if (below(3) == 0 || a.sizes.empty()) {
        some.erase(some.begin() + which % some.size());
        if (some.empty()) break;
      } else {
        int64_t& s = a.sizes[below(a.sizes.size())];
        s = below(2) ? s + 1 : below(2) ? 0 : below(8);
        a = a.like();
        std::fill_n(a.data.get(), a.bytes(), 0);
      }
    }
    try {
      run(m, out, pool);
    } catch (const std::exception&) {
      ++*thrown;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int mutations = std::atoi(argv[1]), calls = std::atoi(argv[2]);
  int thrown = 0, cases = 0;
  Pool one(1), two(2), many(8);
  for (int i = 3; i < argc; ++i, ++cases) {
    const Case c = read(argv[i]);
    for (Pool* pool : {&one, &two, &many}) {
      const std::vector<Array_> first = fresh(c);
      check(run(c, first, *pool) == nullptr, argv[i], "it did not run");
      right(argv[i], c, first);
      if (!calls) continue;
      std::vector<std::thread> callers;
      std::atomic<int> unlike{0};
      for (int t = 0; t < 3; ++t)
        callers.emplace_back([&] {
          for (int k = 0; k < calls; ++k) {
            const std::vector<Array_> out = fresh(c);
            run(c, out, *pool);
            unlike += !same(out, first);
          }
        });
      for (std::thread& t : callers) t.join();
      check(unlike == 0, argv[i], "calls at once differ");
    }
    mutated(c, mutations, two, &thrown);
  }
  std::printf("%d cases, %d programs refused, %d failures\n", cases, thrown, failures);
  return failures != 0;
}
