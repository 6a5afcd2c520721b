// The kernels for one set of instructions, compiled once for each: NAME and VECTOR_BYTES
// come from the command line. All but this one name is local.
#include "forward.h"
#include "gradients.h"

extern "C" {
__attribute__((visibility("hidden"))) extern const jaxseq::Kernel NAME;
const jaxseq::Kernel NAME = {forward<float>, forward<double>, gradients<float>, gradients<double>};
}
