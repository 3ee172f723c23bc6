/* Tiles into rows, before the layers. */
#pragma once

#include "epilogues.h"

/* Row `first` of the patches is another row of x: the tokens before them lie between. */
INLINE void place_patches(const Stage *stage, int first, int count, int column, int columns,
                          const float *block, long stride) {
    Session *s = stage->session;
    const Encoder *e = s->encoder;
    int patches = e->tokens - e->extra;
    for (int i = 0; i < count; i++) {
        int tile = (first + i) / patches, token = (first + i) % patches + e->extra;
        for (int c = 0; c < columns; c += LANES)
            store(s->x + ((long)tile * e->tokens + token) * e->width + column + c,
                  load(block + i * stride + c) + load(e->placed + (long)token * e->width + column + c));
    }
}

/* A row of a patch without the band's mean. */
INLINE void centre(const uint16_t *dn, int count, float mean, float *out) {
    int i = 0;
    for (; i + 4 <= count; i += 4) {
        __m128i whole = _mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)(dn + i)));
        _mm_storeu_ps(out + i, _mm_sub_ps(_mm_cvtepi32_ps(whole), _mm_set1_ps(mean)));
    }
    for (; i < count; i++) out[i] = dn[i] - mean;
}

/* How many patches there are before a row: they are counted without the tokens before them. */
static int patches_before(const Encoder *e, int row) {
    int patches = e->tokens - e->extra, token = row % e->tokens;
    return row / e->tokens * patches + (token > e->extra ? token - e->extra : 0);
}

static void embed(Session *s, int start, int from, int to) {
    const Encoder *e = s->encoder;
    int grid = e->side / e->patch, patches = e->tokens - e->extra, values = e->patches.inputs;
    int area = e->side * e->side;
    /* Tokens before the patches: constants, and what the metadata add. */
    for (int row = from; row < to; row++) {
        int token = row % e->tokens, tile = start + row / e->tokens;
        if (token >= e->extra) continue;
        for (int c = 0; c < e->width; c += LANES) {
            vec x = load(e->placed + (long)token * e->width + c);
            for (int i = 0; i < 8; i++)
                x = plus_product(x, all_lanes(s->metadata[tile * 8 + i]),
                                 load(e->metadata + ((long)i * e->extra + token) * e->width + c));
            store(s->x + (long)row * e->width + c, x);
        }
    }
    int first = patches_before(e, from), end = patches_before(e, to);
    for (int n = first; n < end; n++) {
        const uint16_t *dn = s->dn + (long)(start + n / patches) * e->channels * area;
        const uint16_t *corner = dn + n % patches / grid * e->patch * e->side + n % grid * e->patch;
        float *patch = s->patch + (long)n * values;
        for (int c = 0; c < e->channels; c++)
            for (int y = 0; y < e->patch; y++, patch += e->patch)
                centre(corner + c * area + y * e->side, e->patch, e->mean[c], patch);
    }
    product_fp32(&(RowsFp32){s->patch, values, NULL}, first, end, &e->patches, place_patches,
                 &(Stage){s, &e->patches, NULL, NULL});
}
