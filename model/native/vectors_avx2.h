/* Vectors of eight fp32 numbers: a register of AVX2. What each function does is said in vectors_avx512.h. */
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define LANES 8
#define REGISTERS 16

typedef __m256 vec;
typedef __m256i Lanes; /* all bits of a lane, or none */

INLINE vec load(const float *at) { return _mm256_loadu_ps(at); }
INLINE void store(float *at, vec v) { _mm256_storeu_ps(at, v); }
INLINE vec all_lanes(float x) { return _mm256_set1_ps(x); }
INLINE vec zeros(void) { return _mm256_setzero_ps(); }

INLINE vec plus_product(vec sum, vec a, vec b) { return _mm256_fmadd_ps(a, b, sum); }
INLINE vec minus_product(vec sum, vec a, vec b) { return _mm256_fnmadd_ps(a, b, sum); }

INLINE vec smaller(vec a, vec b) { return _mm256_min_ps(a, b); }
INLINE vec larger(vec a, vec b) { return _mm256_max_ps(a, b); }

INLINE vec root(vec v) { return _mm256_sqrt_ps(v); }

/* The estimate there is here has 12 bits, and not the same ones on every CPU. */
INLINE vec reciprocal(vec v) { return all_lanes(1.0f) / v; }

INLINE vec times_power(vec v, vec power) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(v), _mm256_slli_epi32(_mm256_castps_si256(power), 23)));
}

INLINE Lanes lanes_before(int start, int end) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(end - start), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE Lanes greater(vec a, vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ)); }

INLINE vec select_lanes(Lanes lanes, vec yes, vec no) {
    return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(lanes));
}

INLINE vec keep_lanes(Lanes lanes, vec v) { return _mm256_and_ps(_mm256_castsi256_ps(lanes), v); }

/* A store of some lanes takes long on AMD's CPUs: only where a row ends. */
INLINE void store_first(float *at, int count, vec v) {
    if (count >= LANES)
        store(at, v);
    else
        _mm256_maskstore_ps(at, lanes_before(0, count), v);
}

INLINE int compress(Lanes lanes, int first, vec v, int32_t *numbers, float *values) {
    float all[LANES];
    store(all, v);
    int count = 0;
    for (unsigned left = _mm256_movemask_ps(_mm256_castsi256_ps(lanes)); left; left &= left - 1) {
        int lane = __builtin_ctz(left);
        numbers[count] = first + lane;
        values[count++] = all[lane];
    }
    return count;
}

INLINE void transpose(vec r[LANES]) {
    vec t[LANES];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m256d a = _mm256_castps_pd(t[4 * i]), b = _mm256_castps_pd(t[4 * i + 1]);
        __m256d c = _mm256_castps_pd(t[4 * i + 2]), d = _mm256_castps_pd(t[4 * i + 3]);
        r[4 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        r[4 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        r[4 * i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        r[4 * i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    /* r[4 i + j] now has column j of the rows 4 i .. 4 i + 3 in its first half, 4 + j in its second. */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        t[j] = _mm256_permute2f128_ps(r[j], r[4 + j], 0x20);
        t[4 + j] = _mm256_permute2f128_ps(r[j], r[4 + j], 0x31);
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) r[j] = t[j];
}

INLINE __m128 sums_of(const vec v[4]) {
    vec a = _mm256_unpacklo_ps(v[0], v[1]) + _mm256_unpackhi_ps(v[0], v[1]);
    vec b = _mm256_unpacklo_ps(v[2], v[3]) + _mm256_unpackhi_ps(v[2], v[3]);
    __m256d low = _mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b));
    __m256d high = _mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b));
    vec halves = _mm256_castpd_ps(low) + _mm256_castpd_ps(high);
    return _mm256_castps256_ps128(halves) + _mm256_extractf128_ps(halves, 1);
}

INLINE void spread(__m128 four, vec v[4]) {
    v[0] = _mm256_broadcastss_ps(four);
    v[1] = _mm256_broadcastss_ps(_mm_permute_ps(four, 0x55));
    v[2] = _mm256_broadcastss_ps(_mm_permute_ps(four, 0xAA));
    v[3] = _mm256_broadcastss_ps(_mm_permute_ps(four, 0xFF));
}
