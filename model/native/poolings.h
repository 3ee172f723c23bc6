/* Rows into what is asked for, behind the layers. */
#pragma once

#include <string.h>

#include "session.h"

/* The mean of rows `from` to `to` of a tile, and with `std` their deviation (of the population). */
static void pool(const Encoder *e, const float *x, int from, int to, float *mean, float *std) {
    vec share = all_lanes(1.0f / (to - from));
    for (int c = 0; c < e->dim; c += LANES) {
        vec sum = zeros(), squares = zeros();
        for (int n = from; n < to; n++) sum += load(x + (long)n * e->width + c);
        sum *= share;
        if (mean) store_first(mean + c, e->dim - c, sum);
        if (!std) continue;
        for (int n = from; n < to; n++) {
            vec difference = load(x + (long)n * e->width + c) - sum;
            squares = plus_product(squares, difference, difference);
        }
        store_first(std + c, e->dim - c, root(squares * share));
    }
}

static void give(Session *s, int start, int tiles) {
    const Encoder *e = s->encoder;
    Outputs out = s->outputs;
    for (long i = 0; i < tiles; i++) {
        const float *x = s->x + i * e->tokens * e->width;
        long n = start + i;
        if (out.mean) pool(e, x, 0, e->tokens, out.mean + n * e->dim, NULL);
        if (out.patch_mean) pool(e, x, e->extra, e->tokens, out.patch_mean + n * e->dim, NULL);
        if (out.patch_mean_std) {
            float *at = out.patch_mean_std + n * 2 * e->dim;
            pool(e, x, e->extra, e->tokens, at, at + e->dim);
        }
        if (out.cls) memcpy(out.cls + n * e->dim, x + (e->extra - 1) * e->width, e->dim * sizeof(float));
        if (out.tokens)
            for (int t = 0; t < e->tokens; t++)
                memcpy(out.tokens + (n * e->tokens + t) * e->dim, x + (long)t * e->width,
                       e->dim * sizeof(float));
        long counts = (long)e->depth * e->most_experts;
        if (out.routing)
            for (long j = 0; j < counts; j++)
                out.routing[n * counts + j] =
                    (float)s->routed[i * counts + j] / (float)(e->top_k * e->tokens);
    }
}
