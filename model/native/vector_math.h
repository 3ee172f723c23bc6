/* Vectors of sixteen fp32 numbers (AVX-512). */
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#define LANES 16

typedef __m512 vec;

INLINE long rounded_up(long n, long multiple) { return (n + multiple - 1) / multiple * multiple; }

/* The lanes of the vector at `start` that are before `end`. */
INLINE __mmask16 lanes_before(int start, int end) {
    int left = end - start;
    return left >= LANES ? 0xFFFF : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
}

/* e^x for |x| < 87 or so: x = n ln 2 + r with |r| <= ln 2 / 2. Adding MAGIC leaves n in the lowest bits,
   which shifted to the exponent's place multiply with 2^n. The polynomials of e^r have the least largest
   relative error (found by weighted least squares). */
#define MAGIC 0x1.8p23f

INLINE vec times_power(vec p, vec shifted) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
}

/* Right to about the last bit. */
INLINE vec bounded_exponential(vec x) {
    vec shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(0x1.715476p+0f), _mm512_set1_ps(MAGIC));
    vec n = _mm512_sub_ps(shifted, _mm512_set1_ps(MAGIC));
    vec r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62ep-1f), x); /* the first digits of ln 2 ... */
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.0bfbe8p-15f), r); /* ... and the others */
    vec p = _mm512_set1_ps(0x1.6a2434p-10f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.1239e2p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5558f2p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555492p-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffffcp-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return times_power(p, shifted);
}

#define LOG2_E 0x1.715476p+0f

/* Right to one part in 13,000, for what becomes bf16, which has one in 256: of the whole part of y, and by a
   polynomial with the least largest relative error of the rest. What is no number stays none. */
INLINE vec power_of_two_coarse(vec y) {
    vec rest = _mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    vec p = _mm512_set1_ps(0x1.3f96a4p-4f);
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0x1.cefc4cp-3f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0x1.64444cp-1f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(0x1.fff632p-1f));
    return _mm512_scalef_ps(p, y);
}

INLINE vec exponential_coarse(vec x) { return power_of_two_coarse(_mm512_mul_ps(x, _mm512_set1_ps(LOG2_E))); }

/* e^87 and e^-87 are just within what fp32 holds with all digits. */
#define LARGEST_EXPONENT 87.0f

INLINE vec minus_within_range(vec x) {
    x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-LARGEST_EXPONENT)), _mm512_set1_ps(LARGEST_EXPONENT));
    return _mm512_sub_ps(_mm512_setzero_ps(), x);
}

/* x / (1 + e^-x). */
INLINE vec silu(vec x) {
    vec denominator = _mm512_add_ps(_mm512_set1_ps(1.0f), bounded_exponential(minus_within_range(x)));
    vec y = _mm512_rcp14_ps(denominator); /* and one step of Newton's */
    return _mm512_mul_ps(x, _mm512_mul_ps(y, _mm512_fnmadd_ps(denominator, y, _mm512_set1_ps(2.0f))));
}

INLINE vec silu_coarse(vec x) {
    vec power = power_of_two_coarse(_mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)));
    vec denominator = _mm512_add_ps(_mm512_set1_ps(1.0f), power);
    return _mm512_mul_ps(x, _mm512_rcp14_ps(denominator));
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
    vec a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    vec b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
    __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
    vec quarters = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
    __m256 halves = _mm256_add_ps(_mm512_castps512_ps256(quarters), _mm512_extractf32x8_ps(quarters, 1));
    return _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
}

/* Each of four numbers in all lanes of a vector. */
INLINE void spread(__m128 four, vec v[4]) {
    v[0] = _mm512_broadcastss_ps(four);
    v[1] = _mm512_broadcastss_ps(_mm_permute_ps(four, 0x55));
    v[2] = _mm512_broadcastss_ps(_mm_permute_ps(four, 0xAA));
    v[3] = _mm512_broadcastss_ps(_mm_permute_ps(four, 0xFF));
}
