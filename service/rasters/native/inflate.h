/* Deflated blocks (RFC 1950, RFC 1951), several streams at a time.

   Where a symbol ends is known only once it was looked up, so in one stream each symbol waits for the one before.
   Strips and tiles are streams of their own: while one waits, the others go on.

   A stream is taken only if it is whole and unpacks to exactly the bytes that are expected. Nothing is read or
   written beyond either end, whatever it says. */
#pragma once

#include <stddef.h>

#include "prefix_codes.h"

#define LANES 4    /* streams at a time */
#define LITERALS 3 /* that are taken in one step if they come one after the other */
#define LONGEST 258
#define STEP_IN 16                         /* bytes that a step may look at */
#define STEP_OUT (LITERALS + LONGEST + 24) /* bytes that it may write: copies go by eight */

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
    bool last;   /* block */
    bool paused; /* before what no step can do */
    SymbolTable symbols;
    DistanceTable distances;
} Stream;

/* RFC 1951, 3.2.5: the numbers that codes stand for, from their bases and extra bits. */
#define N(base, extra) ((uint32_t)(base) << 16 | (extra) << 8)
#define NONE (EXCEPTION | NO_CODE)
static const uint32_t LENGTHS[] = {
    EXCEPTION | END_OF_BLOCK,
    N(3, 0), N(4, 0), N(5, 0), N(6, 0), N(7, 0), N(8, 0), N(9, 0), N(10, 0), N(11, 1), N(13, 1),
    N(15, 1), N(17, 1), N(19, 2), N(23, 2), N(27, 2), N(31, 2), N(35, 3), N(43, 3), N(51, 3), N(59, 3),
    N(67, 4), N(83, 4), N(99, 4), N(115, 4), N(131, 5), N(163, 5), N(195, 5), N(227, 5), N(LONGEST, 0), NONE,
    NONE,
};
static const uint32_t DISTANCES[] = {
    N(1, 0), N(2, 0), N(3, 0), N(4, 0), N(5, 1), N(7, 1), N(9, 2), N(13, 2), N(17, 3), N(25, 3),
    N(33, 4), N(49, 4), N(65, 5), N(97, 5), N(129, 6), N(193, 6), N(257, 7), N(385, 7), N(513, 8), N(769, 8),
    N(1025, 9), N(1537, 9), N(2049, 10), N(3073, 10), N(4097, 11), N(6145, 11), N(8193, 12), N(12289, 12),
    N(16385, 13), N(24577, 13), NONE, NONE,
};
#undef N

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

/* The lengths of a block's codes, which are packed themselves (RFC 1951, 3.2.7). */
static bool read_tables(Stream *stream) {
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint32_t table[ENTRIES(LENGTH_DEPTH, 0)];
    uint8_t packed[19] = {0}, lengths[MOST_SYMBOLS + MOST_DISTANCES] = {0};
    unsigned symbols = take(stream, 5) + 257, distances = take(stream, 5) + 1, packs = take(stream, 4) + 4;
    if (symbols > 286 || distances > 30) return false;
    for (unsigned i = 0; i < packs; i++) packed[order[i]] = (uint8_t)take(stream, 3);
    if (!make_table(table, LENGTH_DEPTH, packed, 19, 19, NULL, false)) return false;
    for (unsigned i = 0; i < symbols + distances;) {
        Place *at = &stream->at;
        fill_at_end(at);
        uint32_t entry = table[low(at, LENGTH_DEPTH)];
        if (CODE_BITS(entry) > at->count) return false;
        skip(at, CODE_BITS(entry));
        unsigned value = VALUE(entry) & 0xFF;
        if (value < 16) {
            lengths[i++] = (uint8_t)value;
            continue;
        }
        if (value == 16 && i == 0) return false;
        uint8_t repeated = value == 16 ? lengths[i - 1] : 0;
        unsigned times = value == 16 ? 3 + take(stream, 2) : value == 17 ? 3 + take(stream, 3) : 11 + take(stream, 7);
        if (times > symbols + distances - i) return false;
        while (times--) lengths[i++] = repeated;
    }
    return stream->state != BROKEN && lengths[256] &&
           make_table(stream->symbols, SYMBOL_DEPTH, lengths, symbols, 256, LENGTHS, false) &&
           make_table(stream->distances, DISTANCE_DEPTH, lengths + symbols, distances, 0, DISTANCES, true);
}

static bool fixed_tables(Stream *stream) {
    uint8_t lengths[MOST_SYMBOLS + MOST_DISTANCES];
    for (int i = 0; i < MOST_SYMBOLS; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    memset(lengths + MOST_SYMBOLS, 5, MOST_DISTANCES);
    return make_table(stream->symbols, SYMBOL_DEPTH, lengths, MOST_SYMBOLS, 256, LENGTHS, false) &&
           make_table(stream->distances, DISTANCE_DEPTH, lengths + MOST_SYMBOLS, MOST_DISTANCES, 0, DISTANCES, false);
}

static bool copy_stored(Stream *stream) {
    Place *at = &stream->at;
    fill_at_end(at);
    align(at);
    if (at->end - at->next < 4) return false;
    unsigned size = at->next[0] | at->next[1] << 8, inverse = at->next[2] | at->next[3] << 8;
    at->next += 4;
    if ((size ^ inverse) != 0xFFFF || size > at->end - at->next || size > at->stop - at->out) return false;
    memcpy(at->out, at->next, size);
    at->out += size;
    at->next += size;
    return true;
}

/* Adler-32 (RFC 1950, 8.2). Sums of sixteen columns: additions alone, which a compiler makes vectors of. */
static uint32_t checksum(const uint8_t *bytes, size_t size) {
    enum { COLUMNS = 16, MOST_ROWS = 2000 }; /* 255 * 2,000 * 2,001 / 2 fits 32 bits */
    uint64_t sum = 1, sums = 0;
    while (size >= COLUMNS) {
        size_t rows = size / COLUMNS < MOST_ROWS ? size / COLUMNS : MOST_ROWS;
        uint32_t plain[COLUMNS] = {0}, before[COLUMNS] = {0};
        for (size_t row = 0; row < rows; row++, bytes += COLUMNS)
            for (int i = 0; i < COLUMNS; i++) {
                before[i] += plain[i];
                plain[i] += bytes[i];
            }
        sums += rows * COLUMNS * sum;
        for (uint64_t i = 0; i < COLUMNS; i++) {
            sums += COLUMNS * (uint64_t)before[i] + (COLUMNS - i) * plain[i];
            sum += plain[i];
        }
        sum %= 65521;
        sums %= 65521;
        size -= rows * COLUMNS;
    }
    for (; size; size--) sums += sum += *bytes++;
    return (uint32_t)(sums % 65521) << 16 | (uint32_t)(sum % 65521);
}

/* What follows the last block. */
static bool ends_well(Place *at) {
    fill_at_end(at);
    align(at);
    if (at->end - at->next != 4 || at->out != at->stop) return false;
    uint32_t said = (uint32_t)at->next[0] << 24 | at->next[1] << 16 | at->next[2] << 8 | at->next[3];
    return said == checksum(at->start, (size_t)(at->stop - at->start));
}

/* To the codes of the next block that has any, or to the end. */
static void read_headers(Stream *stream) {
    while (stream->state == AT_HEADER) {
        if (stream->last) {
            stream->state = ends_well(&stream->at) ? ENDED : BROKEN;
            return;
        }
        stream->last = take(stream, 1);
        unsigned kind = take(stream, 2);
        if (stream->state == BROKEN) return;
        bool good = kind == 0   ? copy_stored(stream)
                    : kind == 1 ? fixed_tables(stream)
                    : kind == 2 ? read_tables(stream)
                                : false;
        if (!good) stream->state = BROKEN;
        else if (kind) stream->state = IN_CODES;
    }
}

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
static inline __attribute__((always_inline)) bool step(Place *at, const uint32_t *symbols, const uint32_t *distances) {
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
    stream->at = (Place){.next = packed + 2, .end = packed + size, .start = out, .out = out, .stop = out + expected};
    stream->last = stream->paused = false;
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
            if (stream->state == ENDED) ended++;
            else going[lanes++] = stream;
        }
        if (ended == number) return true;
        inflate_lanes(going, lanes);
    }
}
