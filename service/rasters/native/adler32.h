/* Adler-32, the checksum behind a deflated stream (RFC 1950, 8.2): the sum of all bytes, and the sum of all
   sums up to each of them, which counts a byte as often as there are bytes from it on. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define ADLER_BASE 65521
#define COLUMNS 16

/* `rows` of sixteen bytes: what they come to, and what they add to the sum of sums that begins at 0. */
typedef struct {
    uint64_t sum, sums;
} Sums;

#ifdef __SSE2__
#define MOST_ROWS 2000 /* 8 * 255 * 2,000 * 1,999 / 2 fits 32 bits */

static Sums of_rows(const uint8_t *bytes, size_t rows) {
    const __m128i none = _mm_setzero_si128();
    const __m128i first = _mm_setr_epi16(16, 15, 14, 13, 12, 11, 10, 9);
    const __m128i last = _mm_setr_epi16(8, 7, 6, 5, 4, 3, 2, 1);
    __m128i sum = none, before = none, within = none;
    for (size_t row = 0; row < rows; row++, bytes += COLUMNS) {
        const __m128i sixteen = _mm_loadu_si128((const __m128i *)bytes);
        before = _mm_add_epi32(before, sum);
        sum = _mm_add_epi32(sum, _mm_sad_epu8(sixteen, none));
        within = _mm_add_epi32(within, _mm_madd_epi16(_mm_unpacklo_epi8(sixteen, none), first));
        within = _mm_add_epi32(within, _mm_madd_epi16(_mm_unpackhi_epi8(sixteen, none), last));
    }
    uint32_t sums[4], befores[4], withins[4];
    _mm_storeu_si128((__m128i *)sums, sum);
    _mm_storeu_si128((__m128i *)befores, before);
    _mm_storeu_si128((__m128i *)withins, within);
    Sums all = {0, 0};
    for (int i = 0; i < 4; i++) {
        all.sum += sums[i];
        all.sums += COLUMNS * (uint64_t)befores[i] + withins[i];
    }
    return all;
}
#else
#define MOST_ROWS 2000 /* 255 * 2,000 * 2,001 / 2 fits 32 bits */

static Sums of_rows(const uint8_t *bytes, size_t rows) {
    uint32_t plain[COLUMNS] = {0}, before[COLUMNS] = {0};
    for (size_t row = 0; row < rows; row++, bytes += COLUMNS)
        for (int i = 0; i < COLUMNS; i++) {
            before[i] += plain[i];
            plain[i] += bytes[i];
        }
    Sums all = {0, 0};
    for (uint64_t i = 0; i < COLUMNS; i++) {
        all.sum += plain[i];
        all.sums += COLUMNS * (uint64_t)before[i] + (COLUMNS - i) * plain[i];
    }
    return all;
}
#endif

static uint32_t adler32(const uint8_t *bytes, size_t size) {
    uint64_t sum = 1, sums = 0;
    while (size >= COLUMNS) {
        const size_t rows = size / COLUMNS < MOST_ROWS ? size / COLUMNS : MOST_ROWS;
        const Sums all = of_rows(bytes, rows);
        sums = (sums + rows * COLUMNS * sum + all.sums) % ADLER_BASE;
        sum = (sum + all.sum) % ADLER_BASE;
        bytes += rows * COLUMNS;
        size -= rows * COLUMNS;
    }
    for (; size; size--) sums += sum += *bytes++;
    return (uint32_t)(sums % ADLER_BASE) << 16 | (uint32_t)(sum % ADLER_BASE);
}
