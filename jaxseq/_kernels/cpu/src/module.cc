// The custom call of XLA: checks what it is given, and runs the kernel for this processor.
#include <string_view>

#include "crew.h"
#include "members.h"
#include "processor.h"
#include "read.h"
#include "read_gradients.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

extern "C" {
#define KERNEL(name) __attribute__((visibility("hidden"))) extern const jaxseq::Kernel name;
KERNEL(jaxseq_plain)
#ifdef __x86_64__
KERNEL(jaxseq_avx2)
KERNEL(jaxseq_avx512)
__attribute__((visibility("hidden"))) extern const jaxseq::Pairs jaxseq_pairs;
#endif
#undef KERNEL
}

namespace jaxseq {

// The best of the kernels for this processor; `most` is 3 but in tests.
inline const Kernel& kernel_for(int64_t most) {
#ifdef __x86_64__
  static const int64_t best = processor();
  if (most >= 2 && best >= 2) return jaxseq_avx512;
  if (most >= 1 && best >= 1) return jaxseq_avx2;
#endif
  return jaxseq_plain;
}

inline Pairs pairs_for(int64_t most) {
#ifdef __x86_64__
  static const int64_t best = processor();
  if (most >= 3 && best >= 3) return jaxseq_pairs;
#endif
  return nullptr;
}

inline Type type_of(ffi::DataType type) {
  switch (type) {
    case ffi::S32: return INT32;
    case ffi::F32: return FLOAT32;
    case ffi::F64: return FLOAT64;
    case ffi::PRED: return BOOL;
    case ffi::BF16: return BFLOAT16;
    case ffi::F16: return FLOAT16;
    default: return OTHER;
  }
}
// Of an array that has members in front, what a member has.
inline Buffer buffer(const ffi::AnyBuffer& b, int64_t members, int64_t member) {
  const int64_t lead = members >= 0;
  const auto sizes = b.dimensions();
  require(!lead || (sizes.size() > 0 && sizes[0] == members), "an array has another number of members");
  char* data = (char*)b.untyped_data() + (members > 0 ? b.size_bytes() / members * member : 0);
  return {{sizes.begin() + lead, int64_t(sizes.size()) - lead, {data, type_of(b.element_type())}}};
}

// How many members there are, or -1, and of each argument whether they are in front of it,
// in zeros and ones. All results have them.
struct Members {
  int64_t number = -1;
  std::string_view own{};
};

inline std::vector<Buffer> buffers(const ffi::RemainingArgs& arguments, Members all = {}, int64_t member = 0) {
  std::vector<Buffer> found;
  require(all.number < 0 || all.own.size() == arguments.size(), "arguments and members differ in number");
  for (size_t i = 0; i < arguments.size(); ++i) {
    auto a = arguments.get<ffi::AnyBuffer>(i);
    require(a.has_value(), "an argument is missing");
    found.push_back(buffer(*a, all.number < 0 || all.own[i] != '1' ? -1 : all.number, member));
  }
  return found;
}
inline std::vector<Buffer> buffers(const ffi::RemainingRets& results, Members all = {}, int64_t member = 0) {
  std::vector<Buffer> found;
  for (size_t i = 0; i < results.size(); ++i) {
    auto a = results.get<ffi::AnyBuffer>(i);
    require(a.has_value(), "a result is missing");
    found.push_back(buffer(**a, all.number, member));
  }
  return found;
}

inline ffi::Error outcome(const char* failed) {
  return failed ? ffi::Error(ffi::ErrorCode::kResourceExhausted, failed) : ffi::Error::Success();
}

ffi::Error run(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results, Members all) {
  try {
    auto request = [&](int64_t member) {
      return Request(buffers(arguments, all, member), buffers(results, all, member));
    };
    const Request first = request(0);  // throws what is wrong with any of them
    const Kernel& kernel = kernel_for(first.vectors());
    const Pairs pairs = pairs_for(first.vectors());
    Crew crew(pool);
    const int64_t threads = pool.num_threads();
    auto one = [&](int64_t member, auto& crew, int64_t threads) {
      return request(member).run(kernel, crew, threads, pairs);
    };
    return outcome(all.number < 0 ? first.run(kernel, crew, threads, pairs)
                                  : run_members(all.number, one, crew, threads));
  } catch (const std::exception& e) {
    return ffi::Error::InvalidArgument(e.what());
  }
}

ffi::Error run_gradients(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results,
                         int64_t lefts, int64_t turned, int64_t before, int64_t reverse, int64_t vectors) {
  try {
    const Said said{lefts, turned, before, reverse, vectors};
    const GradientsRequest request(buffers(arguments), buffers(results), said);
    Crew crew(pool);
    return outcome(request.run(kernel_for(request.vectors()), crew, pool.num_threads()));
  } catch (const std::exception& e) {
    return ffi::Error::InvalidArgument(e.what());
  }
}

ffi::Error run_one(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results) {
  return run(pool, arguments, results, {});
}
ffi::Error run_all(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results, int64_t members,
                   std::string_view own) {
  if (members < 0) return ffi::Error::InvalidArgument("jaxseq: a negative number of members");
  return run(pool, arguments, results, {members, own});
}

}  // namespace jaxseq

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    JaxseqForward, jaxseq::run_one,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets());
XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxseqGradients, jaxseq::run_gradients,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int64_t>("lefts")
                                  .Attr<int64_t>("turned")
                                  .Attr<int64_t>("before")
                                  .Attr<int64_t>("reverse")
                                  .Attr<int64_t>("vectors"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    JaxseqMembers, jaxseq::run_all,
    ffi::Ffi::Bind()
        .Ctx<ffi::ThreadPool>()
        .RemainingArgs()
        .RemainingRets()
        .Attr<int64_t>("members")
        .Attr<std::string_view>("own"));
// Of the interface of XLA that this is compiled for, in thousands and ones.
extern "C" int JaxseqInterface() { return 1000 * XLA_FFI_API_MAJOR + XLA_FFI_API_MINOR; }
#pragma GCC visibility pop
