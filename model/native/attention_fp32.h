/* Grouped-query attention in fp32, of one group's heads for as many tokens at a time as there are lanes.

   Their queries stand side by side in the lanes: a score is a key's number times the queries', a query's
   largest score and its sum are found lane by lane, and so are the values' sums. Two heads of the group go
   together, so that a key or value that is loaded is used twice. */
#pragma once

#include <string.h>

#include "encoder.h"
#include "scores.h"
#include "vector_math.h"

/* Scores of so many keys at a time; of values DIMS numbers, or FEWER_DIMS, or one, whatever divides them. */
#if REGISTERS == 32
#define KEYS 7
#define DIMS 9
#define FEWER_DIMS 8
#else
#define KEYS 6
#define DIMS 6
#define FEWER_DIMS 4
#endif
#define HEAD_MULTIPLE 1
#define MOST_DIM 64  /* of a head; what is larger is refused when a session is opened */
#define MOST_HEADS 8 /* of a group */
#define MOST_COLUMNS (MOST_HEADS * MOST_DIM)
#define MOST_TOKENS 512

/* What a thread keeps while it works on a group. */
typedef struct {
    float queries[MOST_COLUMNS][LANES] __attribute__((aligned(64))); /* column by column, of each the heads */
    float result[MOST_COLUMNS][LANES] __attribute__((aligned(64)));
    float scores[MOST_TOKENS + KEYS][2][LANES] __attribute__((aligned(64)));
    float keys[(MOST_TOKENS + KEYS) * MOST_DIM]; /* [tokens][head_dim] */
    float values[MOST_TOKENS * MOST_DIM];
} AttentionSpace;

/* Keys and values of a group, without gaps. `qkv` is the tile's, at the group's first column. */
static void gather_group(AttentionSpace *space, const Encoder *encoder, const float *qkv, long stride) {
    int d = encoder->head_dim, tokens = encoder->tokens, queries = encoder->heads / encoder->groups * d;
    for (int n = 0; n < tokens; n++) {
        const float *key = qkv + n * stride + queries;
        memcpy(space->keys + n * d, key, d * sizeof(float));
        memcpy(space->values + n * d, key + d, d * sizeof(float));
    }
    memset(space->keys + tokens * d, 0, KEYS * d * sizeof(float));
}

/* Scores of two heads. */
static void score(AttentionSpace *space, int tokens, int d, int heads, const int head[2]) {
    for (int n = 0; n < tokens; n += KEYS) {
        vec sum[KEYS][2];
        const float *key = space->keys + n * d;
#pragma GCC unroll 7
        for (int i = 0; i < KEYS; i++) sum[i][0] = sum[i][1] = zeros();
        for (int k = 0; k < d; k++) {
            vec first = load(space->queries[k * heads + head[0]]);
            vec second = load(space->queries[k * heads + head[1]]);
#pragma GCC unroll 7
            for (int i = 0; i < KEYS; i++) {
                vec number = all_lanes(key[i * d + k]);
                sum[i][0] = plus_product(sum[i][0], number, first);
                sum[i][1] = plus_product(sum[i][1], number, second);
            }
        }
#pragma GCC unroll 7
        for (int i = 0; i < KEYS; i++) {
            store(space->scores[n + i][0], sum[i][0]);
            store(space->scores[n + i][1], sum[i][1]);
        }
    }
}

/* Scores into weights, and what a query's weights have to be multiplied with to add up to 1. */
static void weigh(AttentionSpace *space, int tokens, int bounded, vec share[2]) {
    vec total[2] = {zeros(), zeros()};
    if (!bounded) lower_scores(space->scores, tokens);
    for (int n = 0; n < tokens; n++)
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) {
            vec score = load(space->scores[n][r]), weight = bounded_exponential(score);
            store(space->scores[n][r], weight);
            total[r] = with_weight(total[r], weight, score);
        }
    for (int r = 0; r < 2; r++) share[r] = all_lanes(1.0f) / total[r];
}

/* Numbers `from` to `from + dims` of the weighted values; `dims` is a constant where this is inlined. */
INLINE void add_values(AttentionSpace *space, int tokens, int d, int from, int dims, int heads,
                       const int head[2], const vec share[2]) {
    vec sum[DIMS][2];
#pragma GCC unroll 9
    for (int i = 0; i < dims; i++) sum[i][0] = sum[i][1] = zeros();
    for (int n = 0; n < tokens; n++) {
        vec first = load(space->scores[n][0]), second = load(space->scores[n][1]);
        const float *value = space->values + n * d + from;
#pragma GCC unroll 9
        for (int i = 0; i < dims; i++) {
            vec number = all_lanes(value[i]);
            sum[i][0] = plus_product(sum[i][0], number, first);
            sum[i][1] = plus_product(sum[i][1], number, second);
        }
    }
#pragma GCC unroll 9
    for (int i = 0; i < dims; i++) {
        store(space->result[(from + i) * heads + head[0]], sum[i][0] * share[0]);
        store(space->result[(from + i) * heads + head[1]], sum[i][1] * share[1]);
    }
}

static void attend_heads(AttentionSpace *space, int tokens, int d, int heads, const int head[2],
                         int bounded) {
    vec share[2];
    score(space, tokens, d, heads, head);
    weigh(space, tokens, bounded, share);
    int dims = d % DIMS == 0 ? DIMS : d % FEWER_DIMS == 0 ? FEWER_DIMS : 1;
    for (int from = 0; from < d; from += dims) switch (dims) {
        case DIMS: add_values(space, tokens, d, from, DIMS, heads, head, share); break;
        case FEWER_DIMS: add_values(space, tokens, d, from, FEWER_DIMS, heads, head, share); break;
        default: add_values(space, tokens, d, from, 1, heads, head, share);
        }
}

/* The queries from `token` on into columns; those behind the last repeat it. */
static void turn_queries(const Encoder *encoder, const float *qkv, long stride, int token,
                         float (*queries)[LANES]) {
    int columns = encoder->heads / encoder->groups * encoder->head_dim;
    for (int column = 0; column < columns; column += LANES) {
        vec rows[LANES];
        for (int i = 0; i < LANES; i++) {
            int n = token + i < encoder->tokens ? token + i : encoder->tokens - 1;
            rows[i] = load(qkv + n * stride + column);
        }
        transpose(rows);
        for (int i = 0; i < LANES; i++) store(queries[column + i], rows[i]);
    }
}

/* What they found back into rows, in the order of the queries. */
static void turn_back(const Encoder *encoder, float (*result)[LANES], int token, float *out, long stride) {
    int columns = encoder->heads / encoder->groups * encoder->head_dim;
    for (int column = 0; column < columns; column += LANES) {
        vec rows[LANES];
        for (int i = 0; i < LANES; i++) rows[i] = load(result[column + i]);
        transpose(rows);
        for (int i = 0; i < LANES && token + i < encoder->tokens; i++)
            store_first(out + (token + i) * stride + column, columns - column, rows[i]);
    }
}

/* What the tokens `from` to `to` find. qkv, out: the tile's, at the group's first column. */
static void attend(AttentionSpace *space, const Encoder *encoder, int bounded, const float *qkv, long stride,
                   int from, int to, float *out, long out_stride) {
    int heads = encoder->heads / encoder->groups;
    gather_group(space, encoder, qkv, stride);
    for (int token = from; token < to; token += LANES) {
        turn_queries(encoder, qkv, stride, token, space->queries);
        for (int r = 0; r < heads; r += 2) {
            int head[2] = {r, r + 1 < heads ? r + 1 : r};
            attend_heads(space, encoder->tokens, encoder->head_dim, heads, head, bounded);
        }
        turn_back(encoder, space->result, token, out, out_stride);
    }
}
