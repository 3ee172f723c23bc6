/* A layer's experts: each for the rows that chose it. */
#pragma once

#include <math.h>
#include <string.h>

#include "epilogues.h"

/* Which experts a row's gate chooses, the largest logits (of equal ones the first), and their softmax.
   As many rows at a time as there are lanes, side by side in them. */
static void choose(Session *s, Own *own, int layer, int from, int to) {
    const Encoder *e = s->encoder;
    int experts = e->layers[layer].gate.experts, most = e->most_experts;
    memset(own->count, 0, sizeof own->count);
    for (int row = from; row < to; row += LANES) {
        Lanes rows = lanes_before(row, to), taken[MOST_EXPERTS];
        vec logits[MOST_EXPERTS], weights[MOST_EXPERTS], largest = zeros(), total = zeros();
        for (int first = 0; first < MOST_EXPERTS; first += LANES) {
            for (int i = 0; i < LANES; i++)
                logits[first + i] = load(s->logits + (row + i) * MOST_EXPERTS + first);
            transpose(logits + first);
        }
        for (int i = 0; i < experts; i++) taken[i] = lanes_before(0, 0);
        for (int k = 0; k < e->top_k; k++) {
            vec best = all_lanes(-INFINITY);
            Lanes found[MOST_EXPERTS];
            for (int i = 0; i < experts; i++) {
                Lanes better = greater(logits[i], best) & ~taken[i];
                best = select_lanes(better, logits[i], best);
                found[i] = better;
                for (int j = 0; j < i; j++) found[j] &= ~better;
            }
            if (k == 0) largest = best;
            vec lowered = larger(best - largest, all_lanes(-LARGEST_EXPONENT));
            vec weight = bounded_exponential(lowered);
            total += weight;
            for (int i = 0; i < experts; i++) {
                taken[i] |= found[i];
                weights[i] = k ? select_lanes(found[i], weight, weights[i]) : weight;
            }
        }
        for (int i = 0; i < experts; i++) {
            int count = own->count[i];
            own->count[i] += compress(taken[i] & rows, row, weights[i] / total, own->chosen[i] + count,
                                      own->gate[i] + count);
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
