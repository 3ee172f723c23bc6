/* Deflated streams, several at a time (RFC 1951).

   A stream is taken only if it is whole and unpacks to exactly the bytes that are expected. Nothing is read
   or written beyond either end, whatever it says. */
#pragma once

#include "deflate_blocks.h"
#include "deflate_output.h"

/* Bytes that a block has at least, on average; zlib's smallest have 127. To read tables takes as long as a
   thousand symbols, and who packs nothing in many blocks must not keep us busy. */
#define LEAST_BLOCK 64
#define EMPTY_BLOCKS 16

static void begin_stream(Stream *stream, const uint8_t *packed, size_t size, uint8_t *out, size_t expected) {
    stream->packed = packed;
    stream->size = size;
    stream->at = 16;
    stream->start = stream->out = out;
    stream->stop = out + expected;
    stream->last = stream->unusual = false;
    stream->blocks = expected / LEAST_BLOCK + EMPTY_BLOCKS;
    /* CM 8, a window that is one, no dictionary (RFC 1950, 2.2). */
    bool good = size > 2 && (packed[0] & 0xF) == 8 && packed[0] >> 4 <= 7 && !(packed[1] & 0x20) &&
                (packed[0] << 8 | packed[1]) % 31 == 0;
    stream->state = good ? AT_HEADER : BROKEN;
}

/* To codes that steps can take, or the end. */
static void approach(Stream *stream) {
    while (stream->state == IN_CODES || stream->state == AT_HEADER) {
        read_headers(stream);
        if (stream->state != IN_CODES || (!stream->unusual && rounds_left(stream))) return;
        if (!one_symbol(stream)) stream->state = BROKEN;
        stream->unusual = false;
    }
}

/* Unpacks `number` streams, LANES at most. */
static bool inflate(Stream *streams, int number) {
    Lane lane[LANES];
    for (;;) {
        int lanes = 0;
        size_t rounds = MOST_ROUNDS;
        for (int i = 0; i < number; i++) {
            approach(&streams[i]);
            if (streams[i].state == BROKEN) return false;
            if (streams[i].state == ENDED) continue;
            lane[lanes++].stream = &streams[i];
            const size_t left = rounds_left(&streams[i]);
            if (left < rounds) rounds = left;
        }
        switch (lanes) {
        case 0: return true;
        case 1: take_steps(lane, 1, rounds); break;
        case 2: take_steps(lane, 2, rounds); break;
        case 3: take_steps(lane, 3, rounds); break;
        default: take_steps(lane, 4, rounds);
        }
        for (int i = 0; i < lanes; i++)
            if (!write_found(&lane[i])) return false;
    }
}
