/* Grouped-query attention in bf16, in the registers of AMX.

   These are loaded from memory, and wait for what is still on its way there. So the queries of all steps are
   laid out before the first, and a step is finished behind the next one's scores. */
#pragma once

#include <string.h>

#include "attention_pairs.h"
#include "numbers_amx.h"

/* What a thread keeps while it works on a group; zero where it is padding. For 105 tokens most of it fits the
   first cache. */
typedef struct {
    element keys[MOST_TOKENS + WIDE][WIDE] __attribute__((aligned(64))); /* [tokens][head_dim] */
    element values[MOST_TOKENS / WIDE][2 * TILE][WIDE]
        __attribute__((aligned(64))); /* [tokens / 32][head_dim][32] */
    float scores[MOST_TOKENS + WIDE][2][LANES] __attribute__((aligned(64)));
    float sums[2 * TILE][2][LANES] __attribute__((aligned(64)));
    int32_t asked[MOST_TOKENS / LANES][MOST_HEADS][TILE][LANES] __attribute__((aligned(64)));
} AttentionSpace;

#define WEIGHTS_STRIDE (2 * 2 * 64) /* bytes, from one pair of tokens to the next where scores stood */

/* Keys in rows and values in columns. `keys`: the tile's, at the group's first key; its values follow. */
static void gather_group(AttentionSpace *space, const element *keys, long stride, int tokens, int d) {
    Lanes units = lanes_before(0, d / 2);
    for (int n = 0; n < tokens; n++)
        _mm512_store_si512(space->keys[n], _mm512_maskz_loadu_epi32(units, keys + n * stride));
    for (int n = 0; n < tokens; n += LANES) {
        vec rows[LANES];
        for (int i = 0; i < LANES; i++)
            rows[i] = n + i < tokens
                          ? _mm512_castsi512_ps(_mm512_maskz_loadu_epi32(units, keys + (n + i) * stride + d))
                          : zeros();
        transpose(rows);
        for (int u = 0; u < d / 2; u++) {
            __m512i pair = _mm512_castps_si512(rows[u]);
            _mm256_store_si256((__m256i *)(space->values[n / WIDE][2 * u] + n % WIDE),
                               _mm512_cvtepi32_epi16(pair));
            _mm256_store_si256((__m256i *)(space->values[n / WIDE][2 * u + 1] + n % WIDE),
                               _mm512_cvtepi32_epi16(_mm512_srli_epi32(pair, 16)));
        }
    }
}

static void score(AttentionSpace *space, int32_t (*asked)[TILE][LANES], const int head[2], int tokens) {
    _tile_loadd(6, asked[head[0]], 64);
    _tile_loadd(7, asked[head[1]], 64);
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

/* Values behind the last token are zero, so what stands for its weights need only be finite. */
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

/* What the tokens `from` to `to` find. qkv, out: the tile's, at the group's first column. */
static void attend(AttentionSpace *space, const Encoder *encoder, int bounded, const element *qkv,
                   long stride, int from, int to, element *out, long out_stride) {
    int heads = encoder->heads / encoder->groups, d = encoder->head_dim, tokens = encoder->tokens;
    int rounds = (heads + 1) / 2, steps = (to - from + LANES - 1) / LANES * rounds;
    gather_group(space, qkv + heads * d, stride, tokens, d);
    for (int token = from; token < to; token += LANES)
        for (int r = 0; r < heads; r++)
            ask(qkv + r * d, stride, token, tokens, d, space->asked[(token - from) / LANES][r]);
    vec share[2] = {zeros(), zeros()};
    for (int step = 0, last[2] = {0, 0}; step <= steps; step++) {
        int r = step % rounds * 2, head[2] = {r, r + 1 < heads ? r + 1 : r};
        if (step < steps) score(space, space->asked[step / rounds], head, tokens);
        for (int i = 0; i < 2 && step; i++)
            answer(space->sums[0][i], 2 * LANES, share[i], from + (step - 1) / rounds * LANES, tokens, d,
                   out + last[i] * d, out_stride);
        if (step < steps) {
            weigh(space->scores, tokens, bounded, share);
            add_values(space, tokens, d);
        }
        last[0] = head[0], last[1] = head[1];
    }
}
