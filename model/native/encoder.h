/* The fused encoder (model/fused.py) as the kernels see it, and what a library of them offers.

   Rows are tokens. Widths (`inputs`, `outputs`, `width`, `hidden`) are padded with zeros to the multiples
   that the kernels ask for, which layout.py knows. Structures are filled by session.py. */
#pragma once

#include <stdint.h>

/* A row x becomes x @ weight + bias. The weight stands in panels of PANEL columns, the last one narrower:
   of fp32 [inputs][columns]; of bf16 as the kernel multiplies it (numbers_bf16.h, numbers_amx.h). */
typedef struct {
    const void *weight;
    const float *bias; /* [outputs] */
    int32_t inputs, outputs;
} Product;

/* Logits of the experts, always in fp32. */
typedef struct {
    const float *weight; /* [experts][width] */
    const float *bias;   /* [experts] */
    int32_t experts;
} Gate;

/* `qkv`: group by group its queries, its key, its value. Queries stand in fp32 column by column, of each the
   heads, in bf16 head by head. `out`: rows in the order of the queries. `bounded`: no score can be so large
   that its exponential has to be taken of the difference to the largest. */
typedef struct {
    float epsilon[2];
    int32_t hidden, bounded;
    Gate gate;
    Product qkv, out, values, down;
    const Product *expert; /* [experts] */
} Layer;

typedef struct {
    int32_t channels, side, patch;
    int32_t tokens, extra; /* of a tile; of these the ones before the patches */
    int32_t dim, width;    /* of a token: what counts, and with padding */
    int32_t heads, groups, head_dim;
    int32_t depth, top_k, most_experts;
    const float *mean;     /* [channels], DN */
    const float *placed;   /* [tokens][width]: what is added to a token before the first layer */
    const float *metadata; /* [8][extra][width] */
    Product patches;       /* always fp32; its bias is in `placed` */
    const Layer *layers;
} Encoder;

/* What is wanted of a run; NULL where it is not. [tiles] of each. */
typedef struct {
    float *mean, *cls, *patch_mean, *patch_mean_std,
        *tokens;    /* [dim], [dim], [dim], [2 dim], [tokens][dim] */
    float *routing; /* [depth][most_experts] */
} Outputs;

typedef struct Session Session;
