/* LayerNorm without scale and shift, which the weights have taken in, and the gates' logits with it. */
#pragma once

#include <math.h>

#include "session.h"

/* (x - mean) / sqrt(variance + epsilon) of four rows at a time; the padding stays zero. Also the logits of a
   gate of `experts`, a constant where this is inlined, and in fp32 whatever the elements. */
INLINE void normalise_rows(Session *s, int from, int to, float epsilon, const Gate *gate, int experts) {
    const Encoder *e = s->encoder;
    int width = e->width;
    Lanes all = lanes_before(0, LANES), last = lanes_before(width - LANES, e->dim);
    __m128 share = _mm_set1_ps(1.0f / e->dim);
    for (int first = from; first < to; first += 4) {
        int row[4];
        const float *x[4];
        vec sum[4], mean[4], scale[4], logit[MOST_EXPERTS][4];
        for (int i = 0; i < 4; i++) {
            row[i] = first + i < to ? first + i : to - 1; /* what is missing repeats the last one */
            x[i] = s->x + (long)row[i] * width;
            sum[i] = zeros();
        }
        for (int c = 0; c < width; c += LANES)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sum[i] += load(x[i] + c);
        spread(_mm_mul_ps(sums_of(sum), share), mean);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) sum[i] = zeros();
        for (int c = 0; c < width; c += LANES) {
            Lanes lanes = c + LANES < width ? all : last;
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                vec difference = keep_lanes(lanes, load(x[i] + c) - mean[i]);
                sum[i] = plus_product(sum[i], difference, difference);
            }
        }
        __m128 variance = _mm_add_ps(_mm_mul_ps(sums_of(sum), share), _mm_set1_ps(epsilon));
        spread(_mm_div_ps(_mm_set1_ps(1.0f), _mm_sqrt_ps(variance)), scale);
#pragma GCC unroll 5
        for (int k = 0; k < experts; k++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) logit[k][i] = zeros();
        for (int c = 0; c < width; c += LANES) {
            Lanes lanes = c + LANES < width ? all : last;
            vec normal[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                vec difference = keep_lanes(lanes, load(x[i] + c) - mean[i]);
                normal[i] = difference * scale[i];
                store_whole(s->normal + row[i] * s->element_width + c, normal[i]);
            }
#pragma GCC unroll 5
            for (int k = 0; k < experts; k++) {
                vec weight = load(gate->weight + k * width + c);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) logit[k][i] = plus_product(logit[k][i], normal[i], weight);
            }
        }
#pragma GCC unroll 5
        for (int k = 0; k < experts; k++) {
            float four[4];
            _mm_storeu_ps(four, _mm_add_ps(sums_of(logit[k]), _mm_set1_ps(gate->bias[k])));
            for (int i = 0; i < 4; i++) s->logits[row[i] * MOST_EXPERTS + k] = four[i];
        }
    }
}

static void normalise(Session *s, int from, int to, float epsilon, const Gate *gate) {
    switch (gate ? gate->experts : 0) {
    case 0: normalise_rows(s, from, to, epsilon, gate, 0); break;
    case 3: normalise_rows(s, from, to, epsilon, gate, 3); break;
    case 4: normalise_rows(s, from, to, epsilon, gate, 4); break;
    case 5: normalise_rows(s, from, to, epsilon, gate, 5); break;
    default: normalise_rows(s, from, to, epsilon, gate, gate->experts);
    }
}
