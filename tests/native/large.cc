// Runs a case with many more steps than it was written with, so that arrays have more
// elements than 32 bits count. Their memory is a few megabytes, which are mapped again and
// again: what the last steps leave there has to be what they leave after fewer steps.
//
//   large FILE STEPS FEW MANY
//
// where STEPS is the length of time in the file, which no other axis has.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "arrays.h"
#include "crew.h"
#include "kernel.cc"
#include "pool.h"
#include "read_gradients.h"

namespace {

constexpr int64_t OWN = 1 << 24;  // bytes of memory of an array that is mapped

struct Mapped {
  char* data;
  int64_t bytes;
};

// Zeros, ones and minus ones, or zeros alone.
Mapped mapped(int64_t bytes, bool filled) {
  const int64_t whole = (bytes + OWN - 1) / OWN * OWN;
  const int file = memfd_create("large", 0);
  if (file < 0 || ftruncate(file, OWN)) std::perror("large"), std::exit(2);
  // between pages that are not there
  char* p = (char*)mmap(nullptr, whole + 2 * OWN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  for (int64_t i = 0; p != MAP_FAILED && i < whole; i += OWN)
    if (mmap(p + OWN + i, OWN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) p = (char*)MAP_FAILED;
  if (p == MAP_FAILED) std::perror("large"), std::exit(2);
  close(file);
  for (int64_t i = 0; filled && i < OWN / 4; ++i) ((float*)(p + OWN))[i] = float(uint32_t(i % 2048 * 2654435761u) % 3) - 1;
  return {p + OWN, whole};
}

struct Ran {
  std::vector<Array_> in, out;
  std::vector<Mapped> maps;
};

Ran run(const Case& c, int64_t from, int64_t steps) {
  Ran r;
  auto longer = [&](Array_ a, bool filled) {
    bool is_long = false;
    for (int64_t& s : a.sizes)
      if (s == from) s = steps, is_long = true;
    if (!is_long) return a.copy();
    r.maps.push_back(mapped(a.bytes(), filled));
    a.data = std::shared_ptr<char[]>(r.maps.back().data, [](char*) {});
    return a;
  };
  const size_t program = c.said.empty() ? 3 : 0;
  for (size_t i = 0; i < c.arguments.size(); ++i)
    r.in.push_back(i < program ? c.arguments[i].copy() : longer(c.arguments[i], true));
  for (const Array_& a : c.results) r.out.push_back(longer(a.like(), false));
  std::vector<Buffer> in, out;
  for (const Array_& a : r.in) in.push_back(a.buffer());
  for (const Array_& a : r.out) out.push_back(a.buffer());
  Pool pool(2);
  jaxseq::Crew<Pool> crew(pool);
  const char* failed;
  if (const auto& n = c.said; n.empty()) failed = jaxseq::Request(in, out).run(NAME, crew, 2);
  else failed = jaxseq::GradientsRequest(in, out, {n[0], n[1], n[2], n[3], n[4]}).run(NAME, crew, 2);
  if (failed) std::puts(failed), std::exit(1);
  return r;
}

}  // namespace

int main(int, char** argv) {
  const Case c = read(argv[1]);
  const int64_t from = std::atoll(argv[2]), few = std::atoll(argv[3]), many = std::atoll(argv[4]);
  const Ran a = run(c, from, few), b = run(c, from, many);
  int unlike = 0;
  for (size_t i = 0; i < a.out.size(); ++i) {
    const bool is_sum = !c.said.empty() && a.out[i].sizes == b.out[i].sizes;  // of so many equal parts
    const int64_t n = std::min(a.out[i].bytes(), OWN) / 4;
    const float *x = (const float*)a.out[i].data.get(), *y = (const float*)b.out[i].data.get();
    for (int64_t k = 0; k < n; ++k) unlike += (is_sum ? x[k] * float(many / few) : x[k]) != y[k];
  }
  int64_t most = 0;
  for (const auto& all : {b.in, b.out})
    for (const Array_& x : all) most = std::max(most, x.elements());
  std::printf("at most %lld elements, %d unlike\n", (long long)most, unlike);
  return unlike != 0;
}
