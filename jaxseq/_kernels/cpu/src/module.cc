// The custom call of XLA: checks what it is given, and runs the kernel for this processor.
#include "crew.h"
#include "processor.h"
#include "read.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

extern "C" {
#define KERNEL(name) __attribute__((visibility("hidden"))) extern const jaxseq::Kernel name;
KERNEL(jaxseq_plain)
#ifdef __x86_64__
KERNEL(jaxseq_avx2)
KERNEL(jaxseq_avx512)
#endif
#undef KERNEL
}

namespace jaxseq {

// The best of the kernels for this processor; `most` is 2 but in tests.
inline const Kernel& kernel_for(int64_t most) {
#ifdef __x86_64__
  static const int64_t best = processor();
  if (most >= 2 && best == 2) return jaxseq_avx512;
  if (most >= 1 && best >= 1) return jaxseq_avx2;
#endif
  return jaxseq_plain;
}

inline Type type_of(ffi::DataType type) {
  switch (type) {
    case ffi::S32: return INT32;
    case ffi::F32: return FLOAT32;
    case ffi::F64: return FLOAT64;
    case ffi::PRED: return BOOL;
    default: return OTHER;
  }
}
inline Buffer buffer(const ffi::AnyBuffer& b) {
  return {type_of(b.element_type()),
          {b.dimensions().begin(), int64_t(b.dimensions().size()), b.untyped_data()}};
}

ffi::Error run(ffi::ThreadPool pool, ffi::RemainingArgs arguments, ffi::RemainingRets results) {
  try {
    std::vector<Buffer> in, out;
    for (size_t i = 0; i < arguments.size(); ++i) {
      auto a = arguments.get<ffi::AnyBuffer>(i);
      require(a.has_value(), "an argument is missing");
      in.push_back(buffer(*a));
    }
    for (size_t i = 0; i < results.size(); ++i) {
      auto a = results.get<ffi::AnyBuffer>(i);
      require(a.has_value(), "a result is missing");
      out.push_back(buffer(**a));
    }
    const Request request(in, out);
    Crew crew(pool);
    const char* failed = request.run(kernel_for(request.vectors()), crew, pool.num_threads());
    return failed ? ffi::Error(ffi::ErrorCode::kResourceExhausted, failed) : ffi::Error::Success();
  } catch (const std::exception& e) {
    return ffi::Error::InvalidArgument(e.what());
  }
}

}  // namespace jaxseq

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    JaxseqForward, jaxseq::run,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets());
// Of the interface of XLA that this is compiled for, in thousands and ones.
extern "C" int JaxseqInterface() { return 1000 * XLA_FFI_API_MAJOR + XLA_FFI_API_MINOR; }
#pragma GCC visibility pop
