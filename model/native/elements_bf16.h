/* Rows of bf16: the upper half of an fp32 number, rounded to nearest, of ties to even. */
#pragma once

#include <string.h>

#include "coarse_math.h"

typedef uint16_t element;

/* Rows `stride` numbers apart; of these, where there is an `index`, the ones it names. */
typedef struct {
    const element *base;
    long stride;
    const int32_t *index;
} Rows;

INLINE void store_whole(element *at, vec values) {
    _mm256_storeu_si256((__m256i *)at, (__m256i)_mm512_cvtneps_pbh(values));
}

/* In each lane a pair: of `first` in the lower half, of `second` in the upper; rounded to nearest, of ties
   away from zero, which takes less than the instruction. */
INLINE __m512i pairs(vec first, vec second) {
    const __m512i half = _mm512_set1_epi32(0x8000);
    __m512i low = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(first), half), 16);
    __m512i high = _mm512_add_epi32(_mm512_castps_si512(second), half);
    return _mm512_mask_mov_epi16(low, 0xAAAAAAAA, high);
}
