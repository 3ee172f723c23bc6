/* Attention of two heads to a group's keys and values, in AMX: scores, weights and values in bf16, exponentials
   and sums in fp32. */
#pragma once

#define MOST_DIM 32 /* of a head; what is larger is refused when a session is opened */
#define MOST_COLUMNS 128 /* of a group's queries */
#define MOST_TOKENS 512

#include <string.h>

#include "encoder.h"
#include "numbers_amx.h"
#include "attention_pairs.h"


/* What a thread keeps while it works on a group; zero where it is padding. For 105 tokens it fits the first cache. */
typedef struct {
    float queries[MOST_COLUMNS][LANES] __attribute__((aligned(64))); /* column by column, of each the heads */
    float result[MOST_COLUMNS][LANES] __attribute__((aligned(64)));
    int32_t asked[2][MOST_DIM / 2][LANES] __attribute__((aligned(64)));
    element keys[MOST_TOKENS + WIDE][WIDE] __attribute__((aligned(64)));       /* [tokens][head_dim] */
    element values[MOST_TOKENS / WIDE][2 * TILE][WIDE] __attribute__((aligned(64))); /* [tokens / 32][head_dim][32] */
    float scores[MOST_TOKENS + WIDE][2][LANES] __attribute__((aligned(64)));
    float sums[2 * TILE][2][LANES] __attribute__((aligned(64)));
} AttentionSpace;

#define WEIGHTS_STRIDE (2 * 2 * 64) /* bytes, from one pair of tokens to the next */

/* Keys in rows and values in columns. `qkv` is the tile's, at the group's first column. */
static void gather_group(AttentionSpace *space, const Encoder *encoder, const float *qkv, long stride) {
    int d = encoder->head_dim, tokens = encoder->tokens, queries = encoder->heads / encoder->groups * d;
    for (int n = 0; n < tokens; n++)
        for (int k = 0; k < d; k += LANES)
            store_whole(space->keys[n] + k, _mm512_maskz_loadu_ps(lanes_before(k, d), qkv + n * stride + queries + k));
    for (int n = 0; n < tokens; n += LANES)
        for (int k = 0; k < d; k += LANES) {
            vec rows[LANES];
            for (int i = 0; i < LANES; i++)
                rows[i] = n + i < tokens ? _mm512_maskz_loadu_ps(lanes_before(k, d), qkv + (n + i) * stride + queries + d + k)
                                         : _mm512_setzero_ps();
            transpose(rows);
            for (int i = 0; i < LANES && k + i < d; i++)
                store_whole(space->values[n / WIDE][k + i] + n % WIDE, rows[i]);
        }
}

static void score(AttentionSpace *space, int tokens) {
    _tile_loadd(6, space->asked[0], 64);
    _tile_loadd(7, space->asked[1], 64);
    for (int n = 0; n < tokens; n += 2 * TILE) { /* two registers of keys in turn hide each other's latency */
        _tile_loadd(4, space->keys[n], WIDE * sizeof(element));
        _tile_loadd(5, space->keys[n + TILE], WIDE * sizeof(element));
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        _tile_stored(0, space->scores[n][0], 2 * 64);
        _tile_stored(1, space->scores[n][1], 2 * 64);
        _tile_stored(2, space->scores[n + TILE][0], 2 * 64);
        _tile_stored(3, space->scores[n + TILE][1], 2 * 64);
    }
}

static void add_values(AttentionSpace *space, int tokens, int d) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int n = 0; n < tokens; n += WIDE) {
        _tile_loadd(6, space->scores[n][0], WEIGHTS_STRIDE);
        _tile_loadd(7, space->scores[n][1], WEIGHTS_STRIDE);
        _tile_loadd(4, space->values[n / WIDE][0], 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (d > TILE) {
            _tile_loadd(5, space->values[n / WIDE][TILE], 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, space->sums[0][0], 2 * 64);
    _tile_stored(1, space->sums[0][1], 2 * 64);
    if (d > TILE) _tile_stored(2, space->sums[TILE][0], 2 * 64);
    if (d > TILE) _tile_stored(3, space->sums[TILE][1], 2 * 64);
}

static void attend_heads(AttentionSpace *space, int tokens, int d, int heads, const int head[2], int bounded) {
    vec share[2];
    ask(space->queries, d, heads, head, space->asked);
    score(space, tokens);
    weigh(space->scores, tokens, bounded, share);
    add_values(space, tokens, d);
    for (int k = 0; k < d; k++)
        for (int r = 0; r < 2; r++)
            _mm512_store_ps(space->result[k * heads + head[r]],
                            _mm512_mul_ps(_mm512_load_ps(space->sums[k][r]), share[r]));
}
