// A call of the engine, checked against its arrays.
#pragma once
#include <optional>
#include <utility>

#include "read_plan.h"

namespace jaxseq {

// A call, checked: the first three arguments are a program, that is its plan, its code,
// and its constants. The plan says first which masks follow last, and at most how wide
// vectors are.
class Request {
 public:
  Request(const std::vector<Buffer>& arguments, const std::vector<Buffer>& results) {
    require(arguments.size() > 3, "there are too few arrays");
    const Buffer &numbers = arguments[0], &code = arguments[1], &values = arguments[2];
    require(numbers.type() == INT32 && code.type() == INT32, "a program is not of integers");
    type_ = values.type();
    require(type_ == FLOAT32 || type_ == FLOAT64, "it is neither float32 nor float64");
    const auto* first = (const int32_t*)numbers.given.data;
    numbers_.assign(first, first + numbers.elements());
    constants_.resize(values.elements());
    for (size_t i = 0; i < constants_.size(); ++i)
      constants_[i] = type_ == FLOAT32 ? ((const float*)values.given.data)[i] : ((const double*)values.given.data)[i];
    require(numbers_.size() > 2 && numbers_[0] >= 0 && numbers_[0] < 4, "the plan ends too early");
    const int64_t masks = numbers_[0], number = (masks & 1) + (masks >> 1);
    require(int64_t(arguments.size()) > 3 + number, "there are too few arrays");
    std::vector<Given> in, out, of_steps;
    const size_t last = arguments.size() - number;
    for (size_t i = 3; i < arguments.size(); ++i) {
      const Type type = arguments[i].type();
      require(i < last ? fits(type) : type == BOOL, "arguments have other types");
      (i < last ? in : of_steps).push_back(arguments[i].given);
    }
    for (const Buffer& b : results) {
      require(fits(b.type()), "results have other types");
      out.push_back(b.given);
    }
    const Numbers plan{numbers_.data() + 2, numbers_.data() + numbers_.size()};
    const Instructions instructions{(const int32_t*)code.given.data, code.elements(), constants_.data(),
                                    int64_t(constants_.size())};
    plan_.emplace(plan, instructions, std::move(in), std::move(out), of_steps);
    size_t next = 0;
    if (masks & 1) plan_->call.valid = (const uint8_t*)of_steps.at(next++).data;
    if (masks & 2) plan_->call.keep = (const uint8_t*)of_steps.at(next++).data;
  }

  int64_t vectors() const { return numbers_[1]; }

  // Null, or why it did not run.
  template <class Crew>
  const char* run(const Kernel& kernel, Crew& crew, int64_t threads, Pairs pairs = nullptr) const {
    Call call = plan_->call;
    call.pairs = pairs;
    return (type_ == FLOAT32 ? kernel.float32 : kernel.float64)(call, workers_of(crew, threads));
  }

 private:
  // With float32 arrays may have 16 bits.
  bool fits(Type type) const {
    return type == type_ || (type_ == FLOAT32 && (type == BFLOAT16 || type == FLOAT16));
  }

  Type type_;
  std::vector<int64_t> numbers_;
  std::vector<double> constants_;
  std::optional<Plan> plan_;
};

}  // namespace jaxseq
