// A call for gradients of matrices, checked against its arrays.
#pragma once
#include "given.h"

namespace jaxseq {

// What is said of a call beside its arrays. Bit i of `turned` says that the i-th of the
// left sides, then of the gradients of left sides, is by row of the batch, bit i of
// `before` that a left side is what the array was before each step.
struct Said {
  int64_t lefts, turned, before, reverse, vectors;
};

// The arguments are d, the left sides, each followed by what was before the first step if
// that is given, then matrices; the results are gradients of matrices, in the order of the
// left sides, that of b if there is one result more, and gradients of left sides, in the
// order of the matrices.
class GradientsRequest {
 public:
  GradientsRequest(const std::vector<Buffer>& arguments, const std::vector<Buffer>& results, const Said& said)
      : vectors_(said.vectors) {
    require(said.lefts >= 0 && said.lefts < 62 && arguments.size() > 0, "there are too many left sides");
    std::vector<Given> in, out;
    type_ = arguments[0].type() == FLOAT64 ? FLOAT64 : FLOAT32;
    for (const Buffer& b : arguments) require(fits(b.type()), "arguments have other types"), in.push_back(b.given);
    for (const Buffer& b : results) require(fits(b.type()), "results have other types"), out.push_back(b.given);
    const int64_t own = said.lefts + __builtin_popcountll(said.before), rights = int64_t(in.size()) - 1 - own;
    require(said.before >= 0 && said.before < int64_t(1) << said.lefts, "there are fewer left sides");
    require(rights >= 0 && rights + said.lefts < 62, "there are too few arrays, or too many");
    const int64_t biases = int64_t(out.size()) - said.lefts - rights;
    require(biases == 0 || biases == 1, "there are more results than are asked for, or fewer");
    const Given& d = in[0];
    require(d.rank == 3 && d.at(2) > 0 && d.at(2) < 1 << 28, "d is not of rank 3, or too wide");
    call_.T = d.at(0), call_.B = d.at(1), call_.width = d.at(2), call_.d = d.data, call_.reverse = said.reverse;
    size_t next = 1;
    for (int64_t i = 0; i < said.lefts; ++i) {
      Left l{rows(in[next++], said.turned >> i & 1), nullptr};
      if (said.before >> i & 1) l.a.first = taken(in[next++], {call_.B, l.a.width});
      require(!l.a.first || l.a.first.type == l.a.data.type, "what was before the first step has another type");
      l.dw = sum(out[i], {l.a.width, call_.width});
      left_.push_back(l);
    }
    if (biases) call_.db = sum(out[said.lefts], {call_.width});
    for (int64_t i = 0; i < rights; ++i) {
      const Given& w = in[next + i];
      Right r{w.data, rows(out[said.lefts + biases + i], said.turned >> (said.lefts + i) & 1)};
      require(r.dx.width > 0, "the gradient of a left side is empty");
      taken(w, {r.dx.width, call_.width});
      right_.push_back(r);
    }
    call_.lefts = left_.size(), call_.left = left_.data();
    call_.rights = right_.size(), call_.right = right_.data();
  }

  int64_t vectors() const { return vectors_; }

  // Null, or why it did not run.
  template <class Crew>
  const char* run(const Kernel& kernel, Crew& crew, int64_t threads, PairSums pairs = nullptr) const {
    Gradients call = call_;
    call.pairs = pairs;
    return (type_ == FLOAT32 ? kernel.back32 : kernel.back64)(call, workers_of(crew, threads));
  }

 private:
  int64_t vectors_;
  Type type_, half_ = OTHER;
  Gradients call_{};
  std::vector<Left> left_;
  std::vector<Right> right_;

  // With float32 arrays may have 16 bits, all of one type, but not sums over all rows.
  bool fits(Type type) {
    if (type == type_) return true;
    if (type_ != FLOAT32 || bytes_of(type) != 2) return false;
    if (half_ == OTHER) half_ = type;
    return type == half_;
  }
  void* sum(const Given& a, std::initializer_list<int64_t> sizes) const {
    require(a.data.type == type_, "sums have 16 bits");
    return taken(a, sizes).data;
  }
  static Ref taken(const Given& a, std::initializer_list<int64_t> sizes) {
    require(a.has_shape(sizes), "an array has another shape than d and the others say");
    return a.data;
  }
  Rows rows(const Given& a, bool batch_first) const {
    require(a.rank == 3 && a.at(2) < 1 << 28, "a left side is not of rank 3, or too wide");
    taken(a, {batch_first ? call_.B : call_.T, batch_first ? call_.T : call_.B, a.at(2)});
    return {a.data, {}, a.at(2), batch_first};
  }
};

}  // namespace jaxseq
