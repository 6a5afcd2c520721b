// The custom call of XLA: checks what it is given, and runs the kernel for this processor.
#include "crew.h"
#include "members.h"
#include "processor.h"
#include "read_call.h"
#include "read_gradients.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

extern "C" {
#define KERNEL(name) __attribute__((visibility("hidden"))) extern const jaxseq::Kernel name;
KERNEL(jaxseq_plain)
#ifdef __x86_64__
KERNEL(jaxseq_avx2)
KERNEL(jaxseq_avx512)
__attribute__((visibility("hidden"))) extern const jaxseq::OfPairs jaxseq_pairs;
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

inline OfPairs pairs_for(int64_t most) {
#ifdef __x86_64__
  static const int64_t best = processor();
  if (most >= 3 && best >= 3) return jaxseq_pairs;
#endif
  return {};
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
inline Buffer buffer(const ffi::AnyBuffer& b) {
  const auto sizes = b.dimensions();
  return {{sizes.begin(), int64_t(sizes.size()), {b.untyped_data(), type_of(b.element_type())}}};
}

inline Arrays arrays(const ffi::RemainingArgs& arguments, const ffi::RemainingRets& results) {
  Arrays found;
  for (size_t i = 0; i < arguments.size(); ++i) {
    auto a = arguments.get<ffi::AnyBuffer>(i);
    require(a.has_value(), "an argument is missing");
    found.arguments.push_back(buffer(*a));
  }
  for (size_t i = 0; i < results.size(); ++i) {
    auto a = results.get<ffi::AnyBuffer>(i);
    require(a.has_value(), "a result is missing");
    found.results.push_back(buffer(**a));
  }
  return found;
}

template <class Make, class Run>
ffi::Error run(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results, Members all,
               const Make& make, const Run& run) {
  try {
    Crew crew(pool);
    const char* failed = run_call(arrays(arguments, results), all, make, run, crew, pool.num_threads());
    return failed ? ffi::Error(ffi::ErrorCode::kResourceExhausted, failed) : ffi::Error::Success();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, NO_MEMORY);
  } catch (const std::exception& e) {
    return ffi::Error::InvalidArgument(e.what());
  }
}

ffi::Error run_steps(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results, Members all) {
  auto make = [](const Arrays& a) { return Request(a.arguments, a.results); };
  auto one = [](const Request& request, auto& crew, int64_t threads) {
    const int64_t most = request.vectors();
    return request.run(kernel_for(most), crew, threads, pairs_for(most).products);
  };
  return run(pool, arguments, results, all, make, one);
}

ffi::Error run_gradients(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results,
                         int64_t lefts, int64_t turned, int64_t before, int64_t reverse, int64_t vectors,
                         int64_t members, std::string_view own) {
  const Said said{lefts, turned, before, reverse, vectors};
  auto make = [&](const Arrays& a) { return GradientsRequest(a.arguments, a.results, said); };
  auto one = [](const GradientsRequest& request, auto& crew, int64_t threads) {
    const int64_t most = request.vectors();
    return request.run(kernel_for(most), crew, threads, pairs_for(most).sums);
  };
  return run(pool, arguments, results, {members, own}, make, one);
}

ffi::Error run_one(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results) {
  return run_steps(pool, arguments, results, {});
}
ffi::Error run_all(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results, int64_t members,
                   std::string_view own) {
  if (members < 0) return ffi::Error::InvalidArgument("jaxseq: a negative number of members");
  return run_steps(pool, arguments, results, {members, own, 3});
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
                                  .Attr<int64_t>("vectors")
                                  .Attr<int64_t>("members")
                                  .Attr<std::string_view>("own"));
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
