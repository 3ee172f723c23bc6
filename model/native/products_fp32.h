/* Products of rows with a weight in fp32.

   A block of ROWS rows and a panel of PANEL columns is summed in registers: each weight that is loaded is
   used ROWS times, each value of a row ACROSS times. Every sum runs over the inputs in their order, whatever
   rows stand beside it: so a tile has the same embedding alone, in a batch, and however threads share it. */
#pragma once

#include "encoder.h"
#include "vector_math.h"

#if REGISTERS == 32
#define ROWS 7 /* divides the 105 tokens of a tile */
#define ACROSS 3
#else /* 4 by 3 would take all 16, and not every compiler gets by with them */
#define ROWS 6
#define ACROSS 2
#endif
#define PANEL (ACROSS * LANES)
#define LINE 64 /* bytes of the caches */
#define APART static __attribute__((noinline))

/* Rows `stride` numbers apart; of these, where there is an `index`, the ones it names. */
typedef struct {
    const float *base;
    long stride;
    const int32_t *index;
} RowsFp32;

/* What becomes of a block of a product: rows `first` to `first + count`, `columns` columns from `column` on.
 */
typedef struct Stage Stage;
typedef void Epilogue(const Stage *stage, int first, int count, int column, int columns, const float *block,
                      long stride);

/* block[ROWS][PANEL] = rows @ panel; `vectors` is a constant where this is inlined. */
INLINE void block_fp32(const float *const row[ROWS], int inputs, const float *panel, int vectors,
                       float *block) {
    vec sum[ROWS][ACROSS];
#pragma GCC unroll 7
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) sum[i][v] = zeros();
    for (long k = 0; k < inputs; k++) {
        vec weight[ACROSS];
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) weight[v] = load(panel + (k * vectors + v) * LANES);
#pragma GCC unroll 7
        for (int i = 0; i < ROWS; i++) {
            vec value = all_lanes(row[i][k]);
#pragma GCC unroll 3
            for (int v = 0; v < vectors; v++) sum[i][v] = plus_product(sum[i][v], value, weight[v]);
        }
    }
#pragma GCC unroll 7
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) store(block + i * PANEL + v * LANES, sum[i][v]);
}

/* Not inlined: in the midst of a caller GCC keeps some of the sums in memory. */
APART void multiply_fp32(const RowsFp32 *rows, int first, int count, int inputs, const float *panel,
                         int columns, float *block) {
    const float *row[ROWS];
    for (int i = 0; i < ROWS; i++) {
        int r = first + (i < count ? i : count - 1); /* what is missing repeats the last one */
        row[i] = rows->base + (rows->index ? rows->index[r] : r) * rows->stride;
    }
    if (columns == PANEL)
        block_fp32(row, inputs, panel, ACROSS, block);
    else if (columns == LANES)
        block_fp32(row, inputs, panel, 1, block);
    else
        block_fp32(row, inputs, panel, 2, block);
}

/* Rows `from` to `to` of the product; `epilogue` is a constant where this is inlined. With each block a share
   of the next panel is fetched: what the third cache has comes too late for a product that asks for it. */
INLINE void product_fp32(const RowsFp32 *rows, int from, int to, const Product *product, Epilogue epilogue,
                         const Stage *stage) {
    float block[ROWS * PANEL] __attribute__((aligned(64)));
    for (int column = 0; column < product->outputs; column += PANEL) {
        const float *panel = (const float *)product->weight + (long)column * product->inputs;
        int columns = product->outputs - column < PANEL ? product->outputs - column : PANEL;
        const float *next = panel + (long)columns * product->inputs, *until = next;
        long share = (long)columns * product->inputs / ((to - from) / ROWS + 1);
        for (int first = from; first < to; first += ROWS) {
            int count = to - first < ROWS ? to - first : ROWS;
            for (until += share; next < until; next += LINE / sizeof(float)) _mm_prefetch(next, _MM_HINT_T1);
            multiply_fp32(rows, first, count, product->inputs, panel, columns, block);
            epilogue(stage, first, count, column, columns, block, PANEL);
        }
    }
}
