/* Scores of sixteen queries in two heads, a row for each key. */
#pragma once

#include "vector_math.h"

/* A weight into a query's total; and a score that is no finite number into it as a NaN, of which the
   exponentials for scores within bounds would make some number. */
INLINE vec with_weight(vec total, vec weight, vec score) {
    return _mm512_fmadd_ps(score, _mm512_setzero_ps(), _mm512_add_ps(total, weight));
}

/* Subtracts a query's largest score, so that its exponential is 1 and those of others lie in range. */
static void lower_scores(float (*scores)[2][LANES], int tokens) {
    vec largest[2] = {_mm512_load_ps(scores[0][0]), _mm512_load_ps(scores[0][1])};
    for (int n = 1; n < tokens; n++)
        for (int r = 0; r < 2; r++) largest[r] = _mm512_max_ps(largest[r], _mm512_load_ps(scores[n][r]));
    for (int n = 0; n < tokens; n++)
        for (int r = 0; r < 2; r++) {
            vec lowered = _mm512_sub_ps(_mm512_load_ps(scores[n][r]), largest[r]);
            /* Of a NaN and a number the second one is taken: it stays a NaN. */
            _mm512_store_ps(scores[n][r], _mm512_max_ps(_mm512_set1_ps(-LARGEST_EXPONENT), lowered));
        }
}
