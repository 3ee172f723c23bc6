/* A layer's experts: each for the rows that chose it. */
#pragma once

#include <math.h>
#include <string.h>

#include "epilogues.h"

/* Which experts a row's gate chooses, the largest logits (of equal ones the first), and their softmax.
   Sixteen rows at a time, side by side in the lanes. */
static void choose(Session *s, Own *own, int layer, int from, int to) {
    const Encoder *e = s->encoder;
    int experts = e->layers[layer].gate.experts, most = e->most_experts;
    memset(own->count, 0, sizeof own->count);
    for (int row = from; row < to; row += LANES) {
        __mmask16 rows = lanes_before(row, to), taken[MOST_EXPERTS] = {0};
        vec logits[LANES], weights[MOST_EXPERTS], largest = _mm512_setzero_ps(), total = _mm512_setzero_ps();
        for (int i = 0; i < LANES; i++) logits[i] = _mm512_loadu_ps(s->logits + (row + i) * LANES);
        transpose(logits);
        for (int k = 0; k < e->top_k; k++) {
            vec best = _mm512_set1_ps(-INFINITY);
            __mmask16 found[MOST_EXPERTS];
            for (int i = 0; i < experts; i++) {
                __mmask16 better = _mm512_cmp_ps_mask(logits[i], best, _CMP_GT_OQ) & ~taken[i];
                best = _mm512_mask_mov_ps(best, better, logits[i]);
                found[i] = better;
                for (int j = 0; j < i; j++) found[j] &= ~better;
            }
            if (k == 0) largest = best;
            vec lowered = _mm512_max_ps(_mm512_sub_ps(best, largest), _mm512_set1_ps(-LARGEST_EXPONENT));
            vec weight = bounded_exponential(lowered);
            total = _mm512_add_ps(total, weight);
            for (int i = 0; i < experts; i++) {
                taken[i] |= found[i];
                weights[i] = k ? _mm512_mask_mov_ps(weights[i], found[i], weight) : weight;
            }
        }
        __m512i numbers = _mm512_add_epi32(
            _mm512_set1_epi32(row), _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
        for (int i = 0; i < experts; i++) {
            __mmask16 chosen = taken[i] & rows;
            int count = own->count[i];
            _mm512_storeu_si512(own->chosen[i] + count, _mm512_maskz_compress_epi32(chosen, numbers));
            _mm512_storeu_ps(own->gate[i] + count,
                             _mm512_maskz_compress_ps(chosen, _mm512_div_ps(weights[i], total)));
            own->count[i] = count + __builtin_popcount(chosen);
        }
    }
    for (int i = 0; i < experts; i++) /* rows of a tile follow one another */
        for (int n = 0, next; n < own->count[i]; n = next) {
            int tile = own->chosen[i][n] / e->tokens;
            for (next = n + 1; next < own->count[i] && own->chosen[i][next] / e->tokens == tile;) next++;
            atomic_fetch_add(&s->routed[((long)tile * e->depth + layer) * most + i], next - n);
        }
}

/* The rows that chose an expert, one behind the other. */
static Rows gather_rows(Session *s, Own *own, int expert) {
    long width = s->element_width;
    for (int n = 0; n < own->count[expert]; n++)
        memcpy(own->gathered + n * width, s->normal + own->chosen[expert][n] * width,
               width * sizeof(element));
    return (Rows){own->gathered, width, NULL};
}

static void mix_experts(Session *s, Own *own, int number, int from, int to) {
    const Layer *layer = &s->encoder->layers[number];
    choose(s, own, number, from, to);
    memset(s->mix + (long)from * s->hidden_width, 0, (long)(to - from) * s->hidden_width * sizeof(float));
    for (int i = 0; i < layer->gate.experts; i++) {
        Rows chosen = {s->normal, s->element_width, own->chosen[i]};
        if (!READS_BY_INDEX) chosen = gather_rows(s, own, i);
        product(&chosen, 0, own->count[i], &layer->expert[i], add_expert,
                &(Stage){s, &layer->expert[i], own->chosen[i], own->gate[i]});
    }
    product(&(Rows){s->normal, s->element_width, NULL}, from, to, &layer->values, times_mix,
            &(Stage){s, &layer->values, NULL, NULL});
    product(&(Rows){s->gated, s->hidden_elements, NULL}, from, to, &layer->down, add_to_x,
            &(Stage){s, &layer->down, NULL, NULL});
}
