/* Grouped-query attention in bf16, with instructions that multiply two numbers at a time. */
#pragma once

#include <string.h>

#include "attention_pairs.h"

#define KEYS 7 /* scores of so many keys at a time */

/* What a thread keeps while it works on a group. */
typedef struct {
    int32_t asked[2][MOST_DIM / 2][LANES] __attribute__((aligned(64)));
    float scores[MOST_TOKENS + KEYS][2][LANES] __attribute__((aligned(64)));
    float sums[MOST_DIM][2][LANES] __attribute__((aligned(64)));
    int32_t keys[MOST_TOKENS + KEYS][MOST_DIM / 2]; /* pairs of a key's numbers */
    int32_t values[MOST_TOKENS / 2 + 1][MOST_DIM];  /* pairs of two tokens' numbers */
} AttentionSpace;

/* `keys`: the tile's, at the group's first key; its values follow. */
static void gather_group(AttentionSpace *space, const element *keys, long stride, int tokens, int d) {
    for (int n = 0; n < tokens; n++) {
        const element *key = keys + n * stride, *value = key + d;
        memcpy(space->keys[n], key, d * sizeof(element));
        if (n % 2) continue;
        const element *next = n + 1 < tokens ? value + stride : NULL;
        for (int k = 0; k < d; k++) space->values[n / 2][k] = value[k] | (next ? (uint32_t)next[k] << 16 : 0);
    }
}

static void score(AttentionSpace *space, int tokens, int d) {
    for (int n = 0; n < tokens; n += KEYS) {
        vec sum[KEYS][2];
#pragma GCC unroll 7
        for (int i = 0; i < KEYS; i++) sum[i][0] = sum[i][1] = zeros();
        for (int k = 0; k < d / 2; k++) {
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
            store(space->scores[n + i][0], sum[i][0]);
            store(space->scores[n + i][1], sum[i][1]);
        }
    }
}

/* Numbers `from` to `from + dims` of the weighted values; `dims` is a constant where this is inlined. */
INLINE void add_some(AttentionSpace *space, int tokens, int from, int dims) {
    vec sum[9][2];
#pragma GCC unroll 9
    for (int i = 0; i < dims; i++) sum[i][0] = sum[i][1] = zeros();
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
        store(space->sums[from + i][0], sum[i][0]);
        store(space->sums[from + i][1], sum[i][1]);
    }
}

static void add_values(AttentionSpace *space, int tokens, int d) {
    int dims = d % 9 == 0 ? 9 : d % 8 == 0 ? 8 : d % 4 == 0 ? 4 : 1;
    for (int from = 0; from < d; from += dims) switch (dims) {
        case 9: add_some(space, tokens, from, 9); break;
        case 8: add_some(space, tokens, from, 8); break;
        case 4: add_some(space, tokens, from, 4); break;
        default: add_some(space, tokens, from, 1);
        }
}

/* What the tokens `from` to `to` find. qkv, out: the tile's, at the group's first column. */
static void attend(AttentionSpace *space, const Encoder *encoder, int bounded, const element *qkv,
                   long stride, int from, int to, element *out, long out_stride) {
    int heads = encoder->heads / encoder->groups, d = encoder->head_dim, tokens = encoder->tokens;
    gather_group(space, qkv + heads * d, stride, tokens, d);
    for (int token = from; token < to; token += LANES)
        for (int r = 0; r < heads; r += 2) {
            int head[2] = {r, r + 1 < heads ? r + 1 : r};
            vec share[2];
            for (int i = 0; i < 2; i++) ask(qkv + head[i] * d, stride, token, tokens, d, space->asked[i]);
            score(space, tokens, d);
            weigh(space->scores, tokens, bounded, share);
            add_values(space, tokens, d);
            for (int i = 0; i < 2; i++)
                answer(space->sums[0][i], 2 * LANES, share[i], token, tokens, d, out + head[i] * d,
                       out_stride);
        }
}
