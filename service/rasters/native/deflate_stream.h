/* A deflated stream and its place: bits that were read, bytes that were written (RFC 1951, 3.1). */
#pragma once

#include <stddef.h>

#include "prefix_codes.h"

typedef enum { AT_HEADER, IN_CODES, ENDED, BROKEN } State;

typedef struct {
    uint64_t bits; /* not used yet, the next is the lowest; at least `count` of them are there */
    unsigned count;
    const uint8_t *next, *end;
    uint8_t *start, *out, *stop;
} Place;

typedef struct {
    Place at;
    State state;
    bool last;     /* block */
    size_t blocks; /* that there may still be */
    bool paused;   /* before what no step can do */
    SymbolTable symbols;
    DistanceTable distances;
} Stream;

static inline unsigned low(const Place *at, unsigned bits) { return at->bits & ((1u << bits) - 1); }

static inline void skip(Place *at, unsigned bits) {
    at->bits >>= bits;
    at->count -= bits;
}

/* At least 56 bits; where eight bytes can be read. */
static inline void fill(Place *at) {
    uint64_t following;
    memcpy(&following, at->next, 8);
    at->bits |= following << at->count;
    at->next += (63 - at->count) >> 3;
    at->count |= 56;
}

/* As many bits as there still are. */
static inline void fill_at_end(Place *at) {
    while (at->count < 56 && at->next < at->end) {
        at->bits |= (uint64_t)*at->next++ << at->count;
        at->count += 8;
    }
}

/* The next bits, as a number; 0, and the stream is broken, where there are too few. */
static unsigned take(Stream *stream, unsigned bits) {
    Place *at = &stream->at;
    fill_at_end(at);
    if (at->count < bits) {
        stream->state = BROKEN;
        return 0;
    }
    unsigned number = low(at, bits);
    skip(at, bits);
    return number;
}

/* Back to the first byte of which no bit was used. */
static void align(Place *at) {
    at->next -= at->count >> 3;
    at->bits = at->count = 0;
}

static inline uint32_t look_up(const uint32_t *table, unsigned depth, uint64_t bits) {
    uint32_t entry = table[bits & ((1u << depth) - 1)];
    if ((entry & (LITERAL | EXCEPTION | FOLLOWING)) == (EXCEPTION | FOLLOWING))
        entry = table[VALUE(entry) + (bits >> depth & ((1u << (LONGEST_CODE - depth)) - 1))];
    return entry;
}
