/* `fast` where there is AVX-512 BF16: a multiplication takes two numbers of a row at once.

   As in fp32, but weights stand as [inputs / 2][columns][2]. Sums are fp32, and so are gates and patches. */
#pragma once

#include "elements_bf16.h"
#include "products_fp32.h"

#define INPUTS_MULTIPLE 2
#define READS_BY_INDEX 1

INLINE void block_bf16(const element *const row[ROWS], int inputs, const element *panel, int vectors,
                       float *block) {
    vec sum[ROWS][3];
#pragma GCC unroll 7
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) sum[i][v] = _mm512_setzero_ps();
    for (long k = 0; k < inputs; k += 2) {
        __m512bh weight[3];
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++)
            weight[v] = (__m512bh)_mm512_loadu_si512(panel + (k * vectors + 2 * v) * LANES);
#pragma GCC unroll 7
        for (int i = 0; i < ROWS; i++) {
            int32_t pair;
            memcpy(&pair, row[i] + k, sizeof pair);
            __m512bh values = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 3
            for (int v = 0; v < vectors; v++) sum[i][v] = _mm512_dpbf16_ps(sum[i][v], values, weight[v]);
        }
    }
#pragma GCC unroll 7
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) _mm512_store_ps(block + i * PANEL + v * LANES, sum[i][v]);
}

static void multiply_bf16(const Rows *rows, int first, int count, int inputs, const element *panel,
                          int columns, float *block) {
    const element *row[ROWS];
    for (int i = 0; i < ROWS; i++) {
        int r = first + (i < count ? i : count - 1);
        row[i] = rows->base + (rows->index ? rows->index[r] : r) * rows->stride;
    }
    switch (columns) {
    case 3 * LANES: block_bf16(row, inputs, panel, 3, block); break;
    case 2 * LANES: block_bf16(row, inputs, panel, 2, block); break;
    default: block_bf16(row, inputs, panel, 1, block);
    }
}

INLINE void product(const Rows *rows, int from, int to, const Product *product, Epilogue epilogue,
                    const Stage *stage) {
    float block[ROWS * PANEL] __attribute__((aligned(64)));
    for (int column = 0; column < product->outputs; column += PANEL) {
        const element *panel = (const element *)product->weight + (long)column * product->inputs;
        int columns = product->outputs - column < PANEL ? product->outputs - column : PANEL;
        for (int first = from; first < to; first += ROWS) {
            int count = to - first < ROWS ? to - first : ROWS;
            multiply_bf16(rows, first, count, product->inputs, panel, columns, block);
            epilogue(stage, first, count, column, columns, block, PANEL);
        }
    }
}

INLINE vec activated(vec x) { return silu_coarse(x); }

INLINE void begin_numbers(void) {}
INLINE void end_numbers(void) {}
