// Products of pairs of bfloat16, by AVX512-BF16: compiled for it, and run where the
// processor has it.
#include <immintrin.h>

#include "tiles.h"

namespace {

struct Paired {
  static constexpr bool BARE = false;
  static __m512bh each(const float* a) {
    int32_t pair;
    memcpy(&pair, a, 4);
    return (__m512bh)_mm512_set1_epi32(pair);
  }
  static V<float> plus(V<float> sum, __m512bh a, V<float> w) {
    return (V<float>)_mm512_dpbf16_ps((__m512)sum, a, (__m512bh)w);
  }
};

void product_of_pairs(int64_t n, int64_t K, int64_t M, const Row<float>* rows, const float* b,
                      const Slot* slot, Begin begin, const float* bias) {
  constexpr int W = Vector<float>::W;
  const int64_t parts = most(1, over(K, BLOCK)), each = over(K, parts);
  for (int64_t k = 0; k < K; k += each)
    strip<float, Paired>(n, least(each, K - k), k, M, rows, b + k * n * W, n * W, slot, k ? ADD : begin, bias);
}

void sums_of_pairs(int64_t n, int64_t K, const Side<float>& side, const float* b, float* c, int64_t pitch,
                   bool adds) {
  if (side.packed) tile_of_width<float, true, Paired>(n, K, side, b, c, pitch, adds);
  else tile_of_width<float, false, Paired>(n, K, side, b, c, pitch, adds);
}

}  // namespace

extern "C" {
__attribute__((visibility("hidden"))) extern const jaxseq::OfPairs jaxseq_pairs;
const jaxseq::OfPairs jaxseq_pairs = {product_of_pairs, sums_of_pairs};
}
