/* An unpacked block → its part of the bands: samples in this machine's order of bytes, predictor 2 undone
   (TIFF 6.0, section 14), each band by itself, without the padding of tiles. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "eight_pixels.h"

typedef struct {
    int32_t width, height, bands, sample_bytes;
    int32_t block_width, block_height;
    int32_t tiled;   /* blocks at an edge are padded */
    int32_t apart;   /* bands lie in blocks of their own */
    int32_t swapped; /* the bytes of a sample are in the other order */
    int32_t steps;   /* samples are differences to the pixel on the left */
} Layout;

typedef struct {
    int plane, top, left, rows, columns; /* of the picture */
} Block;

static int blocks_across(const Layout *is) { return (is->width + is->block_width - 1) / is->block_width; }

static int blocks_down(const Layout *is) { return (is->height + is->block_height - 1) / is->block_height; }

static int samples_beside(const Layout *is) { return is->apart ? 1 : is->bands; }

static Block block_of(const Layout *is, int index) {
    int across = blocks_across(is), down = blocks_down(is);
    Block block = {index / (across * down), index / across % down * is->block_height,
                   index % across * is->block_width, is->block_height, is->block_width};
    if (block.rows > is->height - block.top) block.rows = is->height - block.top;
    if (block.columns > is->width - block.left) block.columns = is->width - block.left;
    return block;
}

static size_t row_bytes(const Layout *is) {
    return (size_t)is->block_width * samples_beside(is) * is->sample_bytes;
}

/* Of a block, unpacked. */
static size_t block_bytes(const Layout *is, int index) {
    return row_bytes(is) * (is->tiled ? is->block_height : block_of(is, index).rows);
}

/* One row: `samples` of each of `pixels` beside one another → rows of the bands, which are `band` samples
 * apart. */
#define PLACE_ROW(TYPE, SWAPPED)                                                                             \
    static void place_##TYPE(const uint8_t *from, void *to, size_t band, int pixels, int samples,            \
                             int swapped, int steps) {                                                       \
        for (int sample = 0; sample < samples; sample++) {                                                   \
            const uint8_t *next = from + sample * sizeof(TYPE);                                              \
            TYPE *row = (TYPE *)to + sample * band, sum = 0;                                                 \
            for (int x = 0; x < pixels; x++, next += samples * sizeof(TYPE)) {                               \
                TYPE value;                                                                                  \
                memcpy(&value, next, sizeof(TYPE));                                                          \
                if (swapped) value = SWAPPED(value);                                                         \
                row[x] = sum = (TYPE)(steps ? sum + value : value);                                          \
            }                                                                                                \
        }                                                                                                    \
    }
#define AS_IT_IS(value) (value)

PLACE_ROW(uint8_t, AS_IT_IS)
PLACE_ROW(uint16_t, __builtin_bswap16)
PLACE_ROW(uint32_t, __builtin_bswap32)
PLACE_ROW(uint64_t, __builtin_bswap64)

/* One row of 16-bit samples, of two bands or more beside one another: in half the time where there is SSE2.
 */
static void place_pixels(const uint8_t *from, const uint8_t *end, uint16_t *to, size_t band, int pixels,
                         int samples, bool swapped, bool steps) {
#ifdef __SSE2__
    const size_t stride = samples * sizeof *to;
    for (; samples > 0; samples -= EIGHT, from += EIGHT * sizeof *to, to += EIGHT * band) {
        const int some = samples < EIGHT ? samples : EIGHT;
        if (swapped && steps)
            take_apart(from, stride, end, to, band, pixels, some, true, true);
        else if (swapped)
            take_apart(from, stride, end, to, band, pixels, some, true, false);
        else if (steps)
            take_apart(from, stride, end, to, band, pixels, some, false, true);
        else
            take_apart(from, stride, end, to, band, pixels, some, false, false);
    }
#else
    (void)end;
    place_uint16_t(from, to, band, pixels, samples, swapped, steps);
#endif
}

static void place_block(const Layout *is, int index, const uint8_t *unpacked, uint8_t *bands) {
    const Block block = block_of(is, index);
    const int samples = samples_beside(is), size = is->sample_bytes;
    const size_t band = (size_t)is->width * is->height;
    const uint8_t *end = unpacked + block.rows * row_bytes(is);
    for (int row = 0; row < block.rows; row++, unpacked += row_bytes(is)) {
        uint8_t *to =
            bands + (block.plane * band + (size_t)(block.top + row) * is->width + block.left) * size;
        switch (size) {
        case 1: place_uint8_t(unpacked, to, band, block.columns, samples, 0, is->steps); break;
        case 2:
            if (samples > 1)
                place_pixels(unpacked, end, (uint16_t *)to, band, block.columns, samples, is->swapped,
                             is->steps);
            else
                place_uint16_t(unpacked, to, band, block.columns, samples, is->swapped, is->steps);
            break;
        case 4: place_uint32_t(unpacked, to, band, block.columns, samples, is->swapped, is->steps); break;
        case 8: place_uint64_t(unpacked, to, band, block.columns, samples, is->swapped, is->steps); break;
        }
    }
}
