/* Scores of a vector of queries in two heads, a row for each key. */
#pragma once

#include "vector_math.h"

/* A weight into a query's total; and a score that is no finite number into it as a NaN, of which the
   exponentials for scores within bounds would make some number. */
INLINE vec with_weight(vec total, vec weight, vec score) {
    return plus_product(total + weight, score, zeros());
}

/* Subtracts a query's largest score, so that its exponential is 1 and those of others lie in range. */
static void lower_scores(float (*scores)[2][LANES], int tokens) {
    vec largest[2] = {load(scores[0][0]), load(scores[0][1])};
    for (int n = 1; n < tokens; n++)
        for (int r = 0; r < 2; r++) largest[r] = larger(largest[r], load(scores[n][r]));
    for (int n = 0; n < tokens; n++)
        for (int r = 0; r < 2; r++) {
            vec lowered = load(scores[n][r]) - largest[r];
            /* Of a NaN and a number the second one is taken: it stays a NaN. */
            store(scores[n][r], larger(all_lanes(-LARGEST_EXPONENT), lowered));
        }
}
