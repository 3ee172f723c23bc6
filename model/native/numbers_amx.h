/* `fast` where there is AMX: bf16 in registers of 16 rows of 32 numbers, multiplied 16 by 16 at a time.

   Weights stand as [columns / 32][inputs / 32][2][16 pairs of inputs][16 columns][2], so that each register's
   content is one piece; a last half panel has one instead of two. */
#pragma once

#include "elements_bf16.h"
#include "products_fp32.h"

#define INPUTS_MULTIPLE 32
#define READS_BY_INDEX 0
#define TILE 16 /* rows of a register */
#define WIDE 32 /* numbers in each */

/* Every thread says before a run how it uses its registers: all of them whole. */
INLINE void begin_numbers(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) layout = {.palette = 1};
    for (int i = 0; i < 8; i++) layout.bytes[i] = 64, layout.rows[i] = TILE;
    _tile_loadconfig(&layout);
}
INLINE void end_numbers(void) { _tile_release(); }

INLINE vec activated(vec x) { return silu_coarse(x); }

/* block[32][32] = 16 or 32 rows @ 16 or 32 columns; how many is a constant where this is inlined. */
INLINE void block_amx(const element *rows, long stride, int inputs, const element *panel, int tall, int wide,
                      float *block) {
    long bytes = stride * sizeof(element);
    _tile_zero(0);
    if (wide) _tile_zero(1);
    if (tall) _tile_zero(2);
    if (tall && wide) _tile_zero(3);
    for (int k = 0; k < inputs; k += WIDE) {
        _tile_loadd(4, rows + k, bytes);
        _tile_loadd(6, panel, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (wide) {
            _tile_loadd(7, panel + TILE * WIDE, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (tall) {
            _tile_loadd(5, rows + TILE * stride + k, bytes);
            _tile_dpbf16ps(2, 5, 6);
            if (wide) _tile_dpbf16ps(3, 5, 7);
        }
        panel += (wide ? 2 : 1) * TILE * WIDE;
    }
    _tile_stored(0, block, 2 * 64);
    if (wide) _tile_stored(1, block + TILE, 2 * 64);
    if (tall) _tile_stored(2, block + TILE * 2 * TILE, 2 * 64);
    if (tall && wide) _tile_stored(3, block + TILE * 2 * TILE + TILE, 2 * 64);
}

static void multiply_amx(const Rows *rows, int first, int count, int inputs, const element *panel,
                         int columns, float *block) {
    const element *row = rows->base + first * rows->stride;
    if (count > TILE && columns > TILE)
        block_amx(row, rows->stride, inputs, panel, 1, 1, block);
    else if (count > TILE)
        block_amx(row, rows->stride, inputs, panel, 1, 0, block);
    else if (columns > TILE)
        block_amx(row, rows->stride, inputs, panel, 0, 1, block);
    else
        block_amx(row, rows->stride, inputs, panel, 0, 0, block);
}

/* Rows up to the next sixteen behind the last are multiplied too, and left out. Rows that have been read meet
   two panels before others replace them in the first cache. */
INLINE void product(const Rows *rows, int from, int to, const Product *product, Epilogue epilogue,
                    const Stage *stage) {
    float block[2 * TILE * 2 * TILE] __attribute__((aligned(64)));
    for (int start = 0; start < product->outputs; start += 4 * TILE)
        for (int first = from; first < to; first += 2 * TILE) {
            int count = to - first < 2 * TILE ? to - first : 2 * TILE;
            for (int column = start; column < product->outputs && column < start + 4 * TILE;
                 column += 2 * TILE) {
                const element *panel = (const element *)product->weight + (long)column * product->inputs;
                int columns = product->outputs - column < 2 * TILE ? TILE : 2 * TILE;
                multiply_amx(rows, first, count, product->inputs, panel, columns, block);
                epilogue(stage, first, count, column, columns, block, 2 * TILE);
            }
        }
}
