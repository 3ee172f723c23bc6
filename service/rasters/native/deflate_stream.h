/* A deflated stream and its place: bits that were read, bytes that were written (RFC 1951, 3.1). */
#pragma once

#include <stddef.h>

#include "prefix_codes.h"

typedef enum { AT_HEADER, IN_CODES, ENDED, BROKEN } State;

/* The tables of symbols and of distances beside each other, so that a bit of an entry leads to the other. */
typedef struct {
    uint32_t symbols[1 << DEPTH], distances[1 << DEPTH];
    uint32_t long_symbols[FOLLOWING_ENTRIES(MOST_SYMBOLS)], long_distances[FOLLOWING_ENTRIES(MOST_DISTANCES)];
} Codes;
_Static_assert(offsetof(Codes, distances) == THEN_DISTANCE, "the bit is the way to the other table");

typedef struct {
    const uint8_t *packed;
    size_t size, at; /* bytes, and the next bit */
    uint8_t *start, *out, *stop;
    State state;
    bool last;     /* block */
    bool unusual;  /* code comes next */
    size_t blocks; /* that there may still be */
    Codes codes;
} Stream;

static inline size_t bits_left(const Stream *stream) { return 8 * stream->size - stream->at; }

static inline uint64_t lowest(uint64_t bits, unsigned number) { return bits & ((1ull << number) - 1); }

/* The number that the extra bits of an entry are, at the place where its code begins. */
static inline unsigned extra_of(uint32_t entry, uint64_t bits) {
    return (unsigned)(lowest(bits, ALL_BITS(entry)) >> CODE_BITS(entry));
}

/* The bits from `at` on, 57 at least; eight bytes are read. */
static inline uint64_t bits_at(const uint8_t *packed, size_t at) {
    uint64_t bits;
    memcpy(&bits, packed + (at >> 3), 8);
    return bits >> (at & 7);
}

/* The next bits, zeros behind the last one. */
static inline uint64_t next_bits(const Stream *stream) {
    const size_t byte = stream->at >> 3, left = stream->size - byte;
    if (left >= 8) return bits_at(stream->packed, stream->at);
    uint64_t bits = 0;
    for (size_t i = 0; i < left; i++) bits |= (uint64_t)stream->packed[byte + i] << 8 * i;
    return bits >> (stream->at & 7);
}

/* False, and the stream is broken, where there are too few. */
static inline bool skip(Stream *stream, unsigned bits) {
    if (bits > bits_left(stream)) {
        stream->state = BROKEN;
        return false;
    }
    stream->at += bits;
    return true;
}

/* The next bits, as a number; 0, and the stream is broken, where there are too few. */
static unsigned take(Stream *stream, unsigned bits) {
    const uint64_t following = next_bits(stream);
    return skip(stream, bits) ? (unsigned)lowest(following, bits) : 0;
}

/* To the next byte of which no bit was used. */
static void align(Stream *stream) { stream->at = (stream->at + 7) & ~(size_t)7; }

/* The entry of the next code, whatever it is. */
static inline uint32_t look_up(const uint32_t *table, const uint32_t *following, const uint32_t *meanings,
                               uint64_t bits) {
    uint32_t entry = table[lowest(bits, DEPTH)];
    if (!(entry & EXCEPTION)) return entry;
    if (entry & FOLLOWING) return following[VALUE(entry) + lowest(bits >> DEPTH, LONGEST_CODE - DEPTH)];
    if (entry & LONG) return meanings[VALUE(entry) >> 4] + (VALUE(entry) & 15);
    return entry;
}
