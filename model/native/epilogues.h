/* What becomes of a product's blocks while they are in the first cache. */
#pragma once

#include "session.h"

/* What an epilogue needs. */
struct Stage {
    Session *session;
    const Product *product;
    const int32_t *index;
    const float *gate;
};

INLINE vec biased(const Stage *stage, const float *block, int column) {
    return load(block) + load(stage->product->bias + column);
}

INLINE void keep_qkv(const Stage *stage, int first, int count, int column, int columns, const float *block,
                     long stride) {
    Session *s = stage->session;
    for (int i = 0; i < count; i++)
        for (int c = 0; c < columns; c += LANES)
            store_whole(s->qkv + (first + i) * s->qkv_width + column + c,
                        biased(stage, block + i * stride + c, column + c));
}

INLINE void add_to_x(const Stage *stage, int first, int count, int column, int columns, const float *block,
                     long stride) {
    Session *s = stage->session;
    for (int i = 0; i < count; i++)
        for (int c = 0; c < columns; c += LANES) {
            float *x = s->x + (long)(first + i) * s->encoder->width + column + c;
            store(x, load(x) + biased(stage, block + i * stride + c, column + c));
        }
}

INLINE void add_expert(const Stage *stage, int first, int count, int column, int columns, const float *block,
                       long stride) {
    Session *s = stage->session;
    for (int i = 0; i < count; i++) {
        vec gate = all_lanes(stage->gate[first + i]);
        float *mix = s->mix + stage->index[first + i] * s->hidden_width + column;
        for (int c = 0; c < columns; c += LANES) {
            vec active = activated(biased(stage, block + i * stride + c, column + c));
            store(mix + c, plus_product(load(mix + c), gate, active));
        }
    }
}

INLINE void times_mix(const Stage *stage, int first, int count, int column, int columns, const float *block,
                      long stride) {
    Session *s = stage->session;
    for (int i = 0; i < count; i++)
        for (int c = 0; c < columns; c += LANES) {
            vec mix = load(s->mix + (first + i) * s->hidden_width + column + c);
            store_whole(s->gated + (first + i) * s->hidden_elements + column + c,
                        mix * biased(stage, block + i * stride + c, column + c));
        }
    /* Inputs of the next product end at a multiple of INPUTS_MULTIPLE; there, another layer may have left
     * numbers. */
    int end = column + columns;
    if (end == stage->product->outputs && end % INPUTS_MULTIPLE >= LANES)
        for (int i = 0; i < count; i++)
            store_whole(s->gated + (first + i) * s->hidden_elements + end, zeros());
}
