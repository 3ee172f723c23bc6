/* What attention in bf16 does between its products: exponentials and sums are fp32. */
#pragma once

#include "elements_bf16.h"
#include "scores.h"

/* Queries of two heads as pairs of numbers: asked[2][d / 2][16]. */
INLINE void ask(float (*queries)[LANES], int d, int heads, const int head[2], int32_t (*asked)[MOST_DIM / 2][LANES]) {
    for (int r = 0; r < 2; r++)
        for (int k = 0; k < d; k += 2) {
            vec first = _mm512_load_ps(queries[k * heads + head[r]]);
            vec second = k + 1 < d ? _mm512_load_ps(queries[(k + 1) * heads + head[r]]) : _mm512_setzero_ps();
            _mm512_store_si512(asked[r][k / 2], pairs(first, second));
        }
}

/* Scores of two heads into weights, those of two tokens as a pair where the first one's score stood; and what a
   query's weights have to be multiplied with to add up to 1. */
INLINE void weigh(float (*scores)[2][LANES], int tokens, int bounded, vec share[2]) {
    vec total[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    if (!bounded) lower_scores(scores, tokens);
    int n = 0;
    for (; n + 1 < tokens; n += 2)
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) {
            vec first = bounded_exponential_coarse(_mm512_load_ps(scores[n][r]));
            vec second = bounded_exponential_coarse(_mm512_load_ps(scores[n + 1][r]));
            total[r] = _mm512_add_ps(total[r], _mm512_add_ps(first, second));
            _mm512_store_si512(scores[n][r], pairs(first, second));
        }
    for (int r = 0; r < 2; r++) {
        if (n < tokens) {
            vec last = bounded_exponential_coarse(_mm512_load_ps(scores[n][r]));
            total[r] = _mm512_add_ps(total[r], last);
            _mm512_store_si512(scores[n][r], pairs(last, _mm512_setzero_ps()));
        }
        /* Values behind the last token are zero, so the weights there need only be finite. */
        share[r] = _mm512_div_ps(_mm512_set1_ps(1.0f), total[r]);
    }
}
