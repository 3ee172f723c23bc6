/* Grouped-query attention of one group's heads for sixteen tokens at a time.

   Sixteen queries stand side by side in the lanes: a score is a key's number times sixteen queries', a
   query's largest score and its sum are found lane by lane, and so are the values' sums. Two heads of the
   group go together, so that a key or value that is loaded is used twice.

   Here is what all numbers have in common; the products are in attention_<numbers>.h (ATTENTION). */
#pragma once

#include "encoder.h"
#include ATTENTION

/* Sixteen queries from `token` on into columns; those behind the last repeat it. */
static void turn_queries(const Encoder *encoder, const float *qkv, long stride, int token, float (*queries)[LANES]) {
    int columns = encoder->heads / encoder->groups * encoder->head_dim;
    for (int column = 0; column < columns; column += LANES) {
        vec rows[LANES];
        for (int i = 0; i < LANES; i++) {
            int n = token + i < encoder->tokens ? token + i : encoder->tokens - 1;
            rows[i] = _mm512_loadu_ps(qkv + n * stride + column);
        }
        transpose(rows);
        for (int i = 0; i < LANES; i++) _mm512_store_ps(queries[column + i], rows[i]);
    }
}

/* What they found back into rows, in the order of the queries. */
static void turn_back(const Encoder *encoder, float (*result)[LANES], int token, element *out, long stride) {
    int columns = encoder->heads / encoder->groups * encoder->head_dim;
    for (int column = 0; column < columns; column += LANES) {
        vec rows[LANES];
        for (int i = 0; i < LANES; i++) rows[i] = _mm512_load_ps(result[column + i]);
        transpose(rows);
        for (int i = 0; i < LANES && token + i < encoder->tokens; i++)
            store_elements(out + (token + i) * stride + column, rows[i], lanes_before(column, columns));
    }
}

/* What the tokens `from` to `to` find, sixteen at a time. qkv, out: the tile's, at the group's first column. */
static void attend(AttentionSpace *space, const Encoder *encoder, int bounded, const float *qkv, long stride, int from,
                   int to, element *out, long out_stride) {
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
