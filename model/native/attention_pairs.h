/* Attention in bf16, what is not a product of it: exponentials and sums are fp32.

   Products take two bf16 numbers at once, so numbers of a head stand in pairs: of one query or key next to
   each other, of values and weights those of two tokens. As in fp32, sixteen queries stand side by side in
   the lanes. */
#pragma once

#include "elements_bf16.h"
#include "encoder.h"
#include "scores.h"

#define HEAD_MULTIPLE 2
#define MOST_DIM 32  /* of a head; what is larger is refused when a session is opened */
#define MOST_HEADS 8 /* of a group */
#define MOST_TOKENS 512

/* A head's queries of sixteen tokens: asked[d / 2][16]. Those behind the last token repeat it. */
static void ask(const element *queries, long stride, int token, int tokens, int d, int32_t (*asked)[LANES]) {
    vec rows[LANES];
    for (int i = 0; i < LANES; i++) {
        int n = token + i < tokens ? token + i : tokens - 1;
        rows[i] = _mm512_castsi512_ps(_mm512_maskz_loadu_epi32(lanes_before(0, d / 2), queries + n * stride));
    }
    transpose(rows);
    for (int u = 0; u < d / 2; u++) _mm512_store_si512(asked[u], _mm512_castps_si512(rows[u]));
}

/* Scores of two heads into weights, those of two tokens as a pair where the first one's score stood; and what
   a query's weights have to be multiplied with to add up to 1. */
INLINE void weigh(float (*scores)[2][LANES], int tokens, int bounded, vec share[2]) {
    vec total[2] = {zeros(), zeros()};
    if (!bounded) lower_scores(scores, tokens);
    int n = 0;
    for (; n + 1 < tokens; n += 2)
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) {
            vec first = exponential_coarse(load(scores[n][r]));
            vec second = exponential_coarse(load(scores[n + 1][r]));
            total[r] = total[r] + first + second;
            _mm512_store_si512(scores[n][r], pairs(first, second));
        }
    for (int r = 0; r < 2; r++) {
        if (n < tokens) {
            vec last = exponential_coarse(load(scores[n][r]));
            total[r] += last;
            _mm512_store_si512(scores[n][r], pairs(last, zeros()));
        }
        share[r] = all_lanes(1.0f) / total[r];
    }
}

/* A head's weighted values of sixteen tokens, sums[d][..][16], times their share into rows. */
static void answer(const float *sums, long stride, vec share, int token, int tokens, int d, element *out,
                   long out_stride) {
    vec rows[LANES];
    for (int u = 0; u < d / 2; u++) {
        vec first = load(sums + 2 * u * stride) * share;
        vec second = load(sums + (2 * u + 1) * stride) * share;
        rows[u] = _mm512_castsi512_ps(pairs(first, second));
    }
    for (int u = d / 2; u < LANES; u++) rows[u] = zeros();
    transpose(rows);
    for (int i = 0; i < LANES && token + i < tokens; i++)
        _mm512_mask_storeu_epi32(out + (token + i) * out_stride, lanes_before(0, d / 2),
                                 _mm512_castps_si512(rows[i]));
}
