/* Exponentials for what becomes bf16, which has one part in 256. */
#pragma once

#include "vector_math.h"

#define LOG2_E 0x1.715476p+0f

/* Right to one part in 13,000: of the whole part of y, and by a polynomial with the least largest relative
   error of the rest. What is no number stays none. */
INLINE vec power_of_two_coarse(vec y) {
    vec rest = _mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    vec p = all_lanes(0x1.3f96a4p-4f);
    p = plus_product(all_lanes(0x1.cefc4cp-3f), p, rest);
    p = plus_product(all_lanes(0x1.64444cp-1f), p, rest);
    p = plus_product(all_lanes(0x1.fff632p-1f), p, rest);
    return _mm512_scalef_ps(p, y);
}

INLINE vec exponential_coarse(vec x) { return power_of_two_coarse(x * all_lanes(LOG2_E)); }

INLINE vec silu_coarse(vec x) {
    vec denominator = all_lanes(1.0f) + power_of_two_coarse(x * all_lanes(-LOG2_E));
    return x * _mm512_rcp14_ps(denominator);
}
