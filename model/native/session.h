/* What a session keeps from step to step: the rows of the tiles under way, and the way they get memory. */
#pragma once

#include <stdint.h>
#include <stdlib.h>

#include "encoder.h"
#include NUMBERS
#include ATTENTION
#include "team.h"

#define MOST_EXPERTS 16
#define SPARE_ROWS 16 /* behind the last: see numbers_amx.h */

/* What a thread keeps for itself. */
typedef struct {
    AttentionSpace attention;
    int32_t *chosen[MOST_EXPERTS]; /* rows that chose an expert */
    float *gate[MOST_EXPERTS];     /* and with which weight */
    int32_t count[MOST_EXPERTS];
    element *gathered; /* [rows][element_width]: those rows themselves */
} Own;

struct Session {
    const Encoder *encoder;
    int chunk; /* tiles at a time */
    Team team;
    void *memory;
    long element_width, hidden_width, hidden_elements, qkv_width;
    float *x;           /* [rows][width]: the residual stream */
    element *normal;    /* [rows][element_width]: normalised; later what attention found */
    element *qkv;       /* [rows][qkv_width] */
    float *mix;         /* [rows][hidden_width]: experts, weighted and added up */
    element *gated;     /* [rows][hidden_elements]: that times V */
    float *logits;      /* [rows][most experts] */
    float *patch;       /* [rows][patch values] */
    atomic_int *routed; /* [chunk][depth][most_experts]: rows that chose the expert */
    Own **own;          /* of each thread */
    /* Of the run under way. */
    const uint16_t *dn;
    const float *metadata;
    int tiles;
    Outputs outputs;
};

/* Pieces of one allocation, each at the start of a cache line. */
static void *piece(uintptr_t *at, long bytes) {
    void *here = (void *)*at;
    *at += rounded_up(bytes, LINE) + LINE; /* and a line that vectors may reach into */
    return here;
}

/* How many bytes all pieces take; they are set where there is a start. */
static long lay_out(Session *s, int threads, uintptr_t start) {
    uintptr_t at = start;
    const Encoder *e = s->encoder;
    long rows = (long)s->chunk * e->tokens;
    s->x = piece(&at, rows * e->width * sizeof(float));
    s->normal = piece(&at, (rows + SPARE_ROWS) * s->element_width * sizeof(element));
    s->qkv = piece(&at, (rows + 1) * s->qkv_width * sizeof(element)); /* vectors reach behind a row's end */
    s->mix = piece(&at, rows * s->hidden_width * sizeof(float));
    s->gated = piece(&at, (rows + SPARE_ROWS) * s->hidden_elements * sizeof(element));
    s->logits = piece(&at, (rows + LANES) * MOST_EXPERTS * sizeof(float));
    s->patch = piece(&at, rows * e->patches.inputs * sizeof(float));
    s->routed = piece(&at, (long)s->chunk * e->depth * e->most_experts * sizeof(atomic_int));
    s->own = piece(&at, threads * sizeof(Own *));
    for (int i = 0; i < threads; i++) {
        Own *own = piece(&at, sizeof(Own));
        element *gathered =
            READS_BY_INDEX ? NULL : piece(&at, (rows + SPARE_ROWS) * s->element_width * sizeof(element));
        if (start) s->own[i] = own, own->gathered = gathered;
        for (int n = 0; n < e->most_experts; n++) {
            int32_t *chosen = piece(&at, (rows + LANES) * sizeof(int32_t));
            float *gate = piece(&at, (rows + LANES) * sizeof(float));
            if (start) own->chosen[n] = chosen, own->gate[n] = gate;
        }
    }
    return at - start;
}
