/* The pixels of a plain TIFF (../plain_tiff.py says what is plain), for ../native_pixels.py. */
#include <stdlib.h>

#include "inflate.h"
#include "lzw.h"
#include "samples.h"

#define EXPORTED __attribute__((visibility("default")))

typedef enum { NO_COMPRESSION = 1, LZW = 5, DEFLATE = 8 } Compression;

typedef struct {
    const uint8_t *bytes;
    const uint32_t *offsets, *sizes;
} Blocks;

static bool place_stored(const Layout *is, const Blocks *in, int blocks, uint8_t *bands) {
    for (int i = 0; i < blocks; i++) {
        if (in->sizes[i] != block_bytes(is, i)) return false;
        place_block(is, i, in->bytes + in->offsets[i], bands);
    }
    return true;
}

static bool place_lzw(const Layout *is, const Blocks *in, int blocks, uint8_t *unpacked, uint8_t *bands) {
    for (int i = 0; i < blocks; i++) {
        if (!unpack_lzw(in->bytes + in->offsets[i], in->sizes[i], unpacked, block_bytes(is, i))) return false;
        place_block(is, i, unpacked, bands);
    }
    return true;
}

static bool place_deflated(const Layout *is, const Blocks *in, int blocks, uint8_t *unpacked,
                           uint8_t *bands) {
    Stream streams[LANES];
    const size_t most = block_bytes(is, 0) + BEHIND_OUTPUT;
    for (int first = 0, lanes; first < blocks; first += lanes) {
        int rounds = (blocks - first + LANES - 1) / LANES; /* all of about as many streams */
        lanes = (blocks - first + rounds - 1) / rounds;
        for (int i = 0; i < lanes; i++)
            begin_stream(&streams[i], in->bytes + in->offsets[first + i], in->sizes[first + i],
                         unpacked + i * most, block_bytes(is, first + i));
        if (!inflate(streams, lanes)) return false;
        for (int i = 0; i < lanes; i++) place_block(is, first + i, unpacked + i * most, bands);
    }
    return true;
}

/* Unpacks all blocks of a file into `bands`, (bands, height, width) samples. Returns 0 where one is cut, too
   long or damaged, or there is no memory. The layout is of a picture within limits; its sample size is 1, 2,
   4 or 8. */
EXPORTED int landmoe_pixels(const uint8_t *file, size_t size, int compression, const Layout *is,
                            const uint32_t *offsets, const uint32_t *sizes, uint8_t *bands) {
    const int blocks = blocks_across(is) * blocks_down(is) * (is->apart ? is->bands : 1);
    const Blocks in = {file, offsets, sizes};
    for (int i = 0; i < blocks; i++)
        if (offsets[i] < 8 || offsets[i] > size || sizes[i] > size - offsets[i]) return 0;
    if (compression == NO_COMPRESSION) return place_stored(is, &in, blocks, bands);
    uint8_t *room =
        malloc(BEFORE_OUTPUT + (block_bytes(is, 0) + BEHIND_OUTPUT) * (compression == DEFLATE ? LANES : 1));
    if (!room) return 0;
    uint8_t *unpacked = room + BEFORE_OUTPUT;
    bool good = compression == DEFLATE ? place_deflated(is, &in, blocks, unpacked, bands)
                : compression == LZW   ? place_lzw(is, &in, blocks, unpacked, bands)
                                       : false;
    free(room);
    return good;
}
