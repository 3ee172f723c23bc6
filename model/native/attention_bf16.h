/* Attention of two heads to a group's keys and values, two bf16 numbers at a time. */
#pragma once

#define MOST_DIM 64 /* of a head; what is larger is refused when a session is opened */
#define MOST_COLUMNS 128 /* of a group's queries */
#define MOST_TOKENS 512

#include <string.h>

#include "attention_pairs.h"
#include "encoder.h"

#define KEYS 7 /* scores of so many keys at a time */

/* What a thread keeps while it works on a group. */
typedef struct {
    float queries[MOST_COLUMNS][LANES] __attribute__((aligned(64))); /* column by column, of each the heads */
    float result[MOST_COLUMNS][LANES] __attribute__((aligned(64)));
    int32_t asked[2][MOST_DIM / 2][LANES] __attribute__((aligned(64)));
    float scores[MOST_TOKENS + KEYS][2][LANES] __attribute__((aligned(64)));
    int32_t keys[MOST_TOKENS + KEYS][MOST_DIM / 2]; /* pairs of a key's numbers */
    int32_t values[MOST_TOKENS / 2 + 1][MOST_DIM];  /* pairs of two tokens' numbers */
} AttentionSpace;

/* `qkv` is the tile's, at the group's first column. */
static void gather_group(AttentionSpace *space, const Encoder *encoder, const float *qkv, long stride) {
    int d = encoder->head_dim, tokens = encoder->tokens, queries = encoder->heads / encoder->groups * d;
    for (int n = 0; n < tokens; n++) {
        const float *key = qkv + n * stride + queries, *value = key + d;
        for (int k = 0; k < d; k += LANES) {
            __mmask16 lanes = lanes_before(k, d);
            store_whole((element *)space->keys[n] + k, _mm512_maskz_loadu_ps(lanes, key + k));
            if (n % 2) continue;
            vec first = _mm512_maskz_loadu_ps(lanes, value + k), second = _mm512_setzero_ps();
            if (n + 1 < tokens) second = _mm512_maskz_loadu_ps(lanes, value + stride + k);
            _mm512_storeu_si512(space->values[n / 2] + k, pairs(first, second));
        }
    }
}

static void score(AttentionSpace *space, int tokens, int d) {
    for (int n = 0; n < tokens; n += KEYS) {
        vec sum[KEYS][2];
#pragma GCC unroll 7
        for (int i = 0; i < KEYS; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
        for (int k = 0; k < (d + 1) / 2; k++) {
            __m512bh first = (__m512bh)_mm512_load_si512(space->asked[0][k]);
            __m512bh second = (__m512bh)_mm512_load_si512(space->asked[1][k]);
#pragma GCC unroll 7
            for (int i = 0; i < KEYS; i++) {
                __m512bh numbers = (__m512bh)_mm512_set1_epi32(space->keys[n + i][k]);
                sum[i][0] = _mm512_dpbf16_ps(sum[i][0], numbers, first);
                sum[i][1] = _mm512_dpbf16_ps(sum[i][1], numbers, second);
            }
        }
#pragma GCC unroll 7
        for (int i = 0; i < KEYS; i++) {
            _mm512_store_ps(space->scores[n + i][0], sum[i][0]);
            _mm512_store_ps(space->scores[n + i][1], sum[i][1]);
        }
    }
}

/* Numbers `from` to `from + dims` of the weighted values; `dims` is a constant where this is inlined. */
INLINE void add_values(AttentionSpace *space, int tokens, int from, int dims, int heads, const int head[2],
                       const vec share[2]) {
    vec sum[9][2];
#pragma GCC unroll 9
    for (int i = 0; i < dims; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    for (int n = 0; n < tokens; n += 2) {
        __m512bh first = (__m512bh)_mm512_load_si512(space->scores[n][0]);
        __m512bh second = (__m512bh)_mm512_load_si512(space->scores[n][1]);
#pragma GCC unroll 9
        for (int i = 0; i < dims; i++) {
            __m512bh numbers = (__m512bh)_mm512_set1_epi32(space->values[n / 2][from + i]);
            sum[i][0] = _mm512_dpbf16_ps(sum[i][0], numbers, first);
            sum[i][1] = _mm512_dpbf16_ps(sum[i][1], numbers, second);
        }
    }
#pragma GCC unroll 9
    for (int i = 0; i < dims; i++) {
        _mm512_store_ps(space->result[(from + i) * heads + head[0]], _mm512_mul_ps(sum[i][0], share[0]));
        _mm512_store_ps(space->result[(from + i) * heads + head[1]], _mm512_mul_ps(sum[i][1], share[1]));
    }
}

static void attend_heads(AttentionSpace *space, int tokens, int d, int heads, const int head[2], int bounded) {
    vec share[2];
    ask(space->queries, d, heads, head, space->asked);
    score(space, tokens, d);
    weigh(space->scores, tokens, bounded, share);
    int dims = d % 9 == 0 ? 9 : d % 8 == 0 ? 8 : d % 4 == 0 ? 4 : 1;
    for (int from = 0; from < d; from += dims) switch (dims) {
        case 9: add_values(space, tokens, from, 9, heads, head, share); break;
        case 8: add_values(space, tokens, from, 8, heads, head, share); break;
        case 4: add_values(space, tokens, from, 4, heads, head, share); break;
        default: add_values(space, tokens, from, 1, heads, head, share);
        }
}
