/* Rows of 16-bit samples, bands taken apart eight pixels and eight bands at a time: a square of samples in
   eight registers is turned. Needs SSE2, which every x86-64 has. */
#pragma once

#ifdef __SSE2__
#include <emmintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EIGHT 8

/* Rows become columns: pairs, then fours, then eights of samples are brought together. */
static inline void turn(__m128i square[EIGHT]) {
    __m128i pairs[EIGHT], fours[EIGHT];
    for (int i = 0; i < 4; i++) {
        pairs[2 * i] = _mm_unpacklo_epi16(square[2 * i], square[2 * i + 1]);
        pairs[2 * i + 1] = _mm_unpackhi_epi16(square[2 * i], square[2 * i + 1]);
    }
    for (int half = 0; half < EIGHT; half += 4)
        for (int i = 0; i < 2; i++) {
            fours[half + 2 * i] = _mm_unpacklo_epi32(pairs[half + i], pairs[half + 2 + i]);
            fours[half + 2 * i + 1] = _mm_unpackhi_epi32(pairs[half + i], pairs[half + 2 + i]);
        }
    for (int i = 0; i < 4; i++) {
        square[2 * i] = _mm_unpacklo_epi64(fours[i], fours[4 + i]);
        square[2 * i + 1] = _mm_unpackhi_epi64(fours[i], fours[4 + i]);
    }
}

static inline __m128i other_order(__m128i samples) {
    return _mm_or_si128(_mm_slli_epi16(samples, 8), _mm_srli_epi16(samples, 8));
}

/* `pixels` of a row from `from` on, `stride` bytes apart, of each the first `samples`, eight at most → a row
   for each sample, `band` samples apart. What lies from `end` on is not read.

   swapped: the bytes of a sample are in the other order; steps: samples are differences to the pixel on the
   left (both known where this is called, so that the loops have no such questions). */
static inline __attribute__((always_inline)) void take_apart(const uint8_t *from, size_t stride,
                                                             const uint8_t *end, uint16_t *to, size_t band,
                                                             int pixels, int samples, bool swapped,
                                                             bool steps) {
    __m128i sum = _mm_setzero_si128();
    int x = 0;
    for (; x + EIGHT <= pixels && end - from >= (ptrdiff_t)((EIGHT - 1) * stride + sizeof sum); x += EIGHT) {
        __m128i square[EIGHT];
        for (int i = 0; i < EIGHT; i++, from += stride) {
            __m128i pixel = _mm_loadu_si128((const __m128i *)from);
            if (swapped) pixel = other_order(pixel);
            square[i] = sum = steps ? _mm_add_epi16(sum, pixel) : pixel;
        }
        turn(square);
        for (int i = 0; i < EIGHT; i++)
            if (i < samples) _mm_storeu_si128((__m128i *)(to + i * band + x), square[i]);
    }
    for (; x < pixels; x++, from += stride) {
        uint16_t one[EIGHT] = {0};
        memcpy(one, from, samples * sizeof *one);
        __m128i pixel = _mm_loadu_si128((const __m128i *)one);
        if (swapped) pixel = other_order(pixel);
        sum = steps ? _mm_add_epi16(sum, pixel) : pixel;
        _mm_storeu_si128((__m128i *)one, sum);
        for (int i = 0; i < samples; i++) to[i * band + x] = one[i];
    }
}
#endif
