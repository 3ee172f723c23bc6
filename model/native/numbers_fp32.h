/* `exact`: rows and weights of all products in fp32. */
#pragma once

#include "products_fp32.h"

typedef float element;
typedef RowsFp32 Rows;
#define INPUTS_MULTIPLE 1
#define READS_BY_INDEX 1
#define NAME(function) function##_fp32

INLINE void store_elements(element *at, vec values, __mmask16 lanes) {
    _mm512_mask_storeu_ps(at, lanes, values);
}

INLINE void store_whole(element *at, vec values) { _mm512_storeu_ps(at, values); }

INLINE void product(const Rows *rows, int from, int to, const Product *product, Epilogue epilogue,
                    const Stage *stage) {
    product_fp32(rows, from, to, product, epilogue, stage);
}

INLINE vec activated(vec x) { return silu(x); }

INLINE void begin_numbers(void) {}
INLINE void end_numbers(void) {}
