/* Vectors of sixteen fp32 numbers: a register of AVX-512. */
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define REGISTERS 32

typedef __m512 vec; /* adds, subtracts, multiplies and divides with the operators of C */
typedef __mmask16 Lanes;

INLINE vec load(const float *at) { return _mm512_loadu_ps(at); }
INLINE void store(float *at, vec v) { _mm512_storeu_ps(at, v); }
INLINE vec all_lanes(float x) { return _mm512_set1_ps(x); }
INLINE vec zeros(void) { return _mm512_setzero_ps(); }

/* sum + a b and sum - a b, rounded once. */
INLINE vec plus_product(vec sum, vec a, vec b) { return _mm512_fmadd_ps(a, b, sum); }
INLINE vec minus_product(vec sum, vec a, vec b) { return _mm512_fnmadd_ps(a, b, sum); }

/* b where either is a NaN. */
INLINE vec smaller(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE vec larger(vec a, vec b) { return _mm512_max_ps(a, b); }

INLINE vec root(vec v) { return _mm512_sqrt_ps(v); }

/* 1 / v, right to about the last bit: an estimate, and one step of Newton's. */
INLINE vec reciprocal(vec v) {
    vec y = _mm512_rcp14_ps(v);
    return y * minus_product(all_lanes(2.0f), v, y);
}

/* v times 2 to the integer in the lowest bits of `power`. */
INLINE vec times_power(vec v, vec power) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(v), _mm512_slli_epi32(_mm512_castps_si512(power), 23)));
}

/* The lanes of the vector at `start` that are before `end`. */
INLINE Lanes lanes_before(int start, int end) {
    int left = end - start;
    return left >= LANES ? 0xFFFF : left <= 0 ? 0 : (Lanes)((1u << left) - 1);
}

INLINE Lanes greater(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }

/* `yes` in these lanes, `no` in the others. */
INLINE vec select_lanes(Lanes lanes, vec yes, vec no) { return _mm512_mask_mov_ps(no, lanes, yes); }

/* v in these lanes, 0 in the others. */
INLINE vec keep_lanes(Lanes lanes, vec v) { return _mm512_maskz_mov_ps(lanes, v); }

/* The first `count` numbers; all where there are no more. */
INLINE void store_first(float *at, int count, vec v) { _mm512_mask_storeu_ps(at, lanes_before(0, count), v); }

/* Of these lanes, one behind the other, the numbers counted from `first` and v; there is room for a whole
   vector of each. Returns how many. */
INLINE int compress(Lanes lanes, int first, vec v, int32_t *numbers, float *values) {
    __m512i number = _mm512_add_epi32(_mm512_set1_epi32(first),
                                      _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    _mm512_storeu_si512(numbers, _mm512_maskz_compress_epi32(lanes, number));
    _mm512_storeu_ps(values, _mm512_maskz_compress_ps(lanes, v));
    return __builtin_popcount(lanes);
}

/* Sixteen rows of sixteen into columns, in place. */
INLINE void transpose(vec r[LANES]) {
    vec t[LANES];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(t[4 * i]), b = _mm512_castps_pd(t[4 * i + 1]);
        __m512d c = _mm512_castps_pd(t[4 * i + 2]), d = _mm512_castps_pd(t[4 * i + 3]);
        r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    /* r[4 i + j] now has column j of the rows 4 i .. 4 i + 3 in its first quarter, column 4 + j in its second
     * ... */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        t[j] = _mm512_shuffle_f32x4(r[j], r[4 + j], 0x88);
        t[4 + j] = _mm512_shuffle_f32x4(r[j], r[4 + j], 0xDD);
        t[8 + j] = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0x88);
        t[12 + j] = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0xDD);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        r[j] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0x88);
        r[8 + j] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0xDD);
        r[4 + j] = _mm512_shuffle_f32x4(t[4 + j], t[12 + j], 0x88);
        r[12 + j] = _mm512_shuffle_f32x4(t[4 + j], t[12 + j], 0xDD);
    }
}

/* The sums of four vectors' lanes, each in the same order. */
INLINE __m128 sums_of(const vec v[4]) {
    vec a = _mm512_unpacklo_ps(v[0], v[1]) + _mm512_unpackhi_ps(v[0], v[1]);
    vec b = _mm512_unpacklo_ps(v[2], v[3]) + _mm512_unpackhi_ps(v[2], v[3]);
    __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
    __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
    vec quarters = _mm512_castpd_ps(low) + _mm512_castpd_ps(high);
    __m256 halves = _mm512_castps512_ps256(quarters) + _mm512_extractf32x8_ps(quarters, 1);
    return _mm256_castps256_ps128(halves) + _mm256_extractf128_ps(halves, 1);
}

/* Each of four numbers in all lanes of a vector. */
INLINE void spread(__m128 four, vec v[4]) {
    v[0] = _mm512_broadcastss_ps(four);
    v[1] = _mm512_broadcastss_ps(_mm_permute_ps(four, 0x55));
    v[2] = _mm512_broadcastss_ps(_mm_permute_ps(four, 0xAA));
    v[3] = _mm512_broadcastss_ps(_mm_permute_ps(four, 0xFF));
}
