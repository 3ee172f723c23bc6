/* `exact`: rows and weights of all products in fp32. */
#pragma once

#include "products_fp32.h"

typedef float element;
typedef RowsFp32 Rows;
#define INPUTS_MULTIPLE 1
#define READS_BY_INDEX 1

INLINE void store_whole(element *at, vec values) { store(at, values); }

INLINE void product(const Rows *rows, int from, int to, const Product *product, Epilogue epilogue,
                    const Stage *stage) {
    product_fp32(rows, from, to, product, epilogue, stage);
}

INLINE vec activated(vec x) { return silu(x); }

INLINE void begin_numbers(void) {}
INLINE void end_numbers(void) {}
