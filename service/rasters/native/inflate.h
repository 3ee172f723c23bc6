/* Deflated streams, several at a time (RFC 1951).

   Where a symbol ends is known only once it was looked up, so in one stream each symbol waits for the one
   before. Strips and tiles are streams of their own: while one waits, the others go on.

   A stream is taken only if it is whole and unpacks to exactly the bytes that are expected. Nothing is read
   or written beyond either end, whatever it says. */
#pragma once

#include "deflate_blocks.h"

#define LANES 4    /* streams at a time */
#define LITERALS 4 /* that are taken in one step if they come one after the other */
/* Bytes that a block has at least, on average; zlib's smallest have 127. To read tables takes as long as a
   thousand symbols, and who packs nothing in many blocks must not keep us busy. */
#define LEAST_BLOCK 64
#define EMPTY_BLOCKS 16
#define STEP_IN 16                               /* bytes that a step may look at */
#define STEP_OUT (LITERALS + LONGEST_MATCH + 24) /* bytes that it may write: copies go by eight */

/* Codes to the block's end, with a look at either end before each. */
static void finish_block(Stream *stream) {
    Place *at = &stream->at;
    while (stream->state == IN_CODES) {
        fill_at_end(at);
        uint32_t entry = look_up(stream->symbols, SYMBOL_DEPTH, at->bits);
        unsigned bits = CODE_BITS(entry);
        stream->state = BROKEN; /* until it turns out well */
        if (bits > at->count) return;
        skip(at, bits);
        if (entry & LITERAL) {
            if (at->out == at->stop) return;
            *at->out++ = (uint8_t)VALUE(entry);
        } else if (entry & EXCEPTION) {
            if (!(entry & END_OF_BLOCK)) return;
            stream->state = AT_HEADER;
            return;
        } else {
            if (EXTRA_BITS(entry) > at->count) return;
            unsigned length = VALUE(entry) + low(at, EXTRA_BITS(entry));
            skip(at, EXTRA_BITS(entry));
            fill_at_end(at);
            entry = look_up(stream->distances, DISTANCE_DEPTH, at->bits);
            bits = CODE_BITS(entry);
            if (entry & EXCEPTION || bits + EXTRA_BITS(entry) > at->count) return;
            skip(at, bits);
            unsigned distance = VALUE(entry) + low(at, EXTRA_BITS(entry));
            skip(at, EXTRA_BITS(entry));
            if (distance > (size_t)(at->out - at->start) || length > at->stop - at->out) return;
            for (; length; length--, at->out++) *at->out = at->out[-(ptrdiff_t)distance];
        }
        stream->state = IN_CODES;
    }
}

static inline bool far_from_ends(const Place *at) {
    return at->end - at->next >= STEP_IN && at->stop - at->out >= STEP_OUT;
}

static inline void copy8(uint8_t *to, const uint8_t *from) {
    uint64_t piece;
    memcpy(&piece, from, 8);
    memcpy(to, &piece, 8);
}

/* Some literals, or one match. Where it returns false the place is before what it could not do. */
static inline __attribute__((always_inline)) bool step(Place *at, const uint32_t *symbols,
                                                       const uint32_t *distances) {
    fill(at);
    uint32_t entry = symbols[at->bits & ((1u << SYMBOL_DEPTH) - 1)];
    for (int i = 0; i < LITERALS && entry & LITERAL; i++) {
        skip(at, CODE_BITS(entry));
        *at->out++ = (uint8_t)VALUE(entry);
        entry = symbols[at->bits & ((1u << SYMBOL_DEPTH) - 1)];
    }
    if (entry & LITERAL) return true;
    fill(at);
    entry = look_up(symbols, SYMBOL_DEPTH, at->bits);
    if (entry & (LITERAL | EXCEPTION)) {
        if (entry & EXCEPTION && !(entry & LITERAL)) return false;
        skip(at, CODE_BITS(entry));
        *at->out++ = (uint8_t)VALUE(entry);
        return true;
    }
    uint64_t rest = at->bits >> CODE_BITS(entry);
    unsigned length = VALUE(entry) + (rest & ((1u << EXTRA_BITS(entry)) - 1));
    unsigned used = CODE_BITS(entry) + EXTRA_BITS(entry);
    rest >>= EXTRA_BITS(entry);
    entry = look_up(distances, DISTANCE_DEPTH, rest);
    rest >>= CODE_BITS(entry);
    unsigned distance = VALUE(entry) + (rest & ((1u << EXTRA_BITS(entry)) - 1));
    if (entry & EXCEPTION || distance > (size_t)(at->out - at->start)) return false;
    skip(at, used + CODE_BITS(entry) + EXTRA_BITS(entry));
    const uint8_t *from = at->out - distance;
    uint8_t *to = at->out, *end = to + length;
    at->out = end;
    if (distance >= 8) {
        copy8(to, from);
        copy8(to + 8, from + 8); /* most matches end here */
        for (to += 16, from += 16; to < end; to += 8, from += 8) copy8(to, from);
    } else if (distance == 1) {
        memset(to, *from, length);
    } else {
        while (to < end) *to++ = *from++;
    }
    return true;
}

/* Steps of all streams in turn until one cannot go on so. */
static inline __attribute__((always_inline)) void in_lanes(Stream *const *stream, const int lanes) {
    Place at[LANES];
    bool paused[LANES] = {false};
    for (int i = 0; i < lanes; i++) at[i] = stream[i]->at;
    for (bool going = true; going;)
        for (int i = 0; i < lanes; i++) {
            paused[i] = !step(&at[i], stream[i]->symbols, stream[i]->distances);
            going &= !paused[i] & far_from_ends(&at[i]);
        }
    for (int i = 0; i < lanes; i++) {
        stream[i]->at = at[i];
        stream[i]->paused = paused[i];
    }
}

static void inflate_lanes(Stream *const *streams, int lanes) {
    switch (lanes) {
    case 1: in_lanes(streams, 1); break;
    case 2: in_lanes(streams, 2); break;
    case 3: in_lanes(streams, 3); break;
    default: in_lanes(streams, 4);
    }
}

static void begin_stream(Stream *stream, const uint8_t *packed, size_t size, uint8_t *out, size_t expected) {
    stream->at =
        (Place){.next = packed + 2, .end = packed + size, .start = out, .out = out, .stop = out + expected};
    stream->last = stream->paused = false;
    stream->blocks = expected / LEAST_BLOCK + EMPTY_BLOCKS;
    /* CM 8, a window that is one, no dictionary (RFC 1950, 2.2). */
    bool good = size > 2 && (packed[0] & 0xF) == 8 && packed[0] >> 4 <= 7 && !(packed[1] & 0x20) &&
                (packed[0] << 8 | packed[1]) % 31 == 0;
    stream->state = good ? AT_HEADER : BROKEN;
}

/* Unpacks `number` streams, LANES at most. */
static bool inflate(Stream *streams, int number) {
    Stream *going[LANES];
    for (;;) {
        int lanes = 0, ended = 0;
        for (int i = 0; i < number; i++) {
            Stream *stream = &streams[i];
            while (stream->state != ENDED) {
                read_headers(stream);
                if (stream->state == BROKEN) return false;
                if (stream->state == IN_CODES && !stream->paused && far_from_ends(&stream->at)) break;
                finish_block(stream);
                stream->paused = false;
            }
            if (stream->state == ENDED)
                ended++;
            else
                going[lanes++] = stream;
        }
        if (ended == number) return true;
        inflate_lanes(going, lanes);
    }
}
