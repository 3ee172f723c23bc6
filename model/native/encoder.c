/* The encoder, layer by layer, for a few tiles at a time whose rows stay in the cache.

   Compiled once for each of the KERNELS, whose headers VECTORS, NUMBERS and ATTENTION name. Fused into the
   products are what precedes and follows them; an expert is computed for the tokens that chose it, and for no
   others. */
#include <string.h>

#include "epilogues.h"
#include "experts.h"
#include "normalise.h"
#include "poolings.h"
#include "session.h"
#include "tokens.h"

/* Items are LANES of a group's queries; thread `part` takes its share of them, those of a group together. */
static void attend_part(Session *s, Own *own, int bounded, int part, int tiles) {
    const Encoder *e = s->encoder;
    int heads = e->heads / e->groups, pieces = rounded_up(e->tokens, LANES) / LANES;
    int items = tiles * e->groups * pieces, threads = s->team.barrier.threads;
    int end = items * (part + 1) / threads;
    for (int item = items * part / threads, next; item < end; item = next) {
        int place = item / pieces, tile = place / e->groups, group = place % e->groups;
        next = (place + 1) * pieces < end ? (place + 1) * pieces : end;
        attend(&own->attention, e, bounded,
               s->qkv + (long)tile * e->tokens * s->qkv_width + group * (heads + 2) * e->head_dim,
               s->qkv_width, item % pieces * LANES, (next - place * pieces) * LANES,
               s->normal + (long)tile * e->tokens * s->element_width + group * heads * e->head_dim,
               s->element_width);
    }
}

/* The whole of a run, as thread `part` sees it. Rows are shared out in whole blocks of a product. */
static void work(void *of, int part) {
    Session *s = of;
    const Encoder *e = s->encoder;
    int threads = s->team.barrier.threads;
    begin_numbers();
    for (int start = 0; start < s->tiles; start += s->chunk) {
        int tiles = s->tiles - start < s->chunk ? s->tiles - start : s->chunk, rows = tiles * e->tokens;
        int blocks = (rows + ROWS - 1) / ROWS;
        int from = blocks * part / threads * ROWS, to = blocks * (part + 1) / threads * ROWS;
        if (to > rows) to = rows;
        Own *own = s->own[part];
        if (part == 0)
            for (long i = 0; i < (long)tiles * e->depth * e->most_experts; i++) s->routed[i] = 0;
        embed(s, start, from, to);
        wait_for_all(&s->team.barrier); /* before the choices of experts are counted from zero */
        for (int i = 0; i < e->depth; i++) {
            const Layer *layer = &e->layers[i];
            normalise(s, from, to, layer->epsilon[0], NULL);
            product(&(Rows){s->normal, s->element_width, NULL}, from, to, &layer->qkv, keep_qkv,
                    &(Stage){s, &layer->qkv, NULL, NULL});
            wait_for_all(&s->team.barrier);
            attend_part(s, own, layer->bounded, part, tiles);
            wait_for_all(&s->team.barrier);
            product(&(Rows){s->normal, s->element_width, NULL}, from, to, &layer->out, add_to_x,
                    &(Stage){s, &layer->out, NULL, NULL});
            normalise(s, from, to, layer->epsilon[1], &layer->gate);
            mix_experts(s, own, i, from, to);
        }
        wait_for_all(&s->team.barrier);
        if (part == 0) give(s, start, tiles);
        wait_for_all(&s->team.barrier);
    }
    end_numbers();
}

/* What the library offers, to CPUs that support.c finds able. */

#define EXPORTED __attribute__((visibility("default")))
#define JOINED(function, kernels) function##_##kernels
#define OF(function, kernels) JOINED(function, kernels)
#define NAME(function) OF(function, KERNELS)

/* Ends the session's threads. No run may be under way. */
EXPORTED void NAME(landmoe_close)(Session *s) {
    if (!s) return;
    end_team(&s->team);
    free(s->memory);
    free(s);
}

/* A session for one run at a time, in `threads` threads, `chunk` tiles at once. `encoder` has to outlive it.
   NULL where the encoder is larger than the kernels allow, or memory or threads cannot be had. */
EXPORTED Session *NAME(landmoe_open)(const Encoder *encoder, int chunk, int threads) {
    if (encoder->head_dim > MOST_DIM || encoder->head_dim % HEAD_MULTIPLE || encoder->tokens > MOST_TOKENS ||
        encoder->heads / encoder->groups > MOST_HEADS || encoder->most_experts > MOST_EXPERTS)
        return NULL;
    Session *s = calloc(1, sizeof(Session));
    if (!s) return NULL;
    *s = (Session){.encoder = encoder, .chunk = chunk, .qkv_width = encoder->layers[0].qkv.outputs};
    s->element_width = rounded_up(encoder->width, INPUTS_MULTIPLE);
    for (int i = 0; i < encoder->depth; i++) {
        const Layer *layer = &encoder->layers[i];
        if (layer->hidden > s->hidden_width) s->hidden_width = layer->hidden;
    }
    s->hidden_elements = rounded_up(s->hidden_width, INPUTS_MULTIPLE);
    long bytes = lay_out(s, threads, 0);
    int ready = begin_team(&s->team, threads, work, s);
    s->memory = aligned_alloc(LINE, rounded_up(bytes, LINE));
    if (!ready || !s->memory) {
        NAME(landmoe_close)(s);
        return NULL;
    }
    memset(s->memory, 0, bytes); /* rows' padding stays so */
    lay_out(s, threads, (uintptr_t)s->memory);
    return s;
}

/* Embeds tiles: dn [tiles][channels][side][side], metadata [tiles][4][2]. */
EXPORTED void NAME(landmoe_run)(Session *s, const uint16_t *dn, const float *metadata, int tiles,
                                const Outputs *outputs) {
    s->dn = dn, s->metadata = metadata, s->tiles = tiles, s->outputs = *outputs;
    work_together(&s->team);
}
