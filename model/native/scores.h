/* Scores of sixteen queries in two heads, a row for each key. */
#pragma once

#include "vector_math.h"

/* Subtracts a query's largest score, so that its exponential is 1 and those of others lie in range. */
static void lower_scores(float (*scores)[2][LANES], int tokens) {
    vec largest[2] = {_mm512_load_ps(scores[0][0]), _mm512_load_ps(scores[0][1])};
    for (int n = 1; n < tokens; n++)
        for (int r = 0; r < 2; r++) largest[r] = _mm512_max_ps(largest[r], _mm512_load_ps(scores[n][r]));
    for (int n = 0; n < tokens; n++)
        for (int r = 0; r < 2; r++) {
            vec lowered = _mm512_sub_ps(_mm512_load_ps(scores[n][r]), largest[r]);
            _mm512_store_ps(scores[n][r], _mm512_max_ps(lowered, _mm512_set1_ps(-LARGEST_EXPONENT)));
        }
}
