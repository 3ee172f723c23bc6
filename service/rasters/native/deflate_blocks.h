/* What stands around the codes of a deflated stream: headers of blocks, tables, stored bytes, what follows
   (RFC 1950, RFC 1951). */
#pragma once

#include "adler32.h"
#include "deflate_stream.h"

#define LONGEST_MATCH 258

/* RFC 1951, 3.2.5: the numbers that codes stand for, from their bases and extra bits. */
#define N(base, extra) ((uint32_t)(base) << 16 | (extra) << 8)
#define NONE (EXCEPTION | NO_CODE)
static const uint32_t LENGTHS[] = {EXCEPTION | END_OF_BLOCK,
                                   N(3, 0),
                                   N(4, 0),
                                   N(5, 0),
                                   N(6, 0),
                                   N(7, 0),
                                   N(8, 0),
                                   N(9, 0),
                                   N(10, 0),
                                   N(11, 1),
                                   N(13, 1),
                                   N(15, 1),
                                   N(17, 1),
                                   N(19, 2),
                                   N(23, 2),
                                   N(27, 2),
                                   N(31, 2),
                                   N(35, 3),
                                   N(43, 3),
                                   N(51, 3),
                                   N(59, 3),
                                   N(67, 4),
                                   N(83, 4),
                                   N(99, 4),
                                   N(115, 4),
                                   N(131, 5),
                                   N(163, 5),
                                   N(195, 5),
                                   N(227, 5),
                                   N(LONGEST_MATCH, 0),
                                   NONE,
                                   NONE};
static const uint32_t DISTANCES[] = {
    N(1, 0),     N(2, 0),     N(3, 0),     N(4, 0),      N(5, 1),      N(7, 1),      N(9, 2),     N(13, 2),
    N(17, 3),    N(25, 3),    N(33, 4),    N(49, 4),     N(65, 5),     N(97, 5),     N(129, 6),   N(193, 6),
    N(257, 7),   N(385, 7),   N(513, 8),   N(769, 8),    N(1025, 9),   N(1537, 9),   N(2049, 10), N(3073, 10),
    N(4097, 11), N(6145, 11), N(8193, 12), N(12289, 12), N(16385, 13), N(24577, 13), NONE,        NONE,
};
#undef N

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
        unsigned times = value == 16   ? 3 + take(stream, 2)
                         : value == 17 ? 3 + take(stream, 3)
                                       : 11 + take(stream, 7);
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
           make_table(stream->distances, DISTANCE_DEPTH, lengths + MOST_SYMBOLS, MOST_DISTANCES, 0, DISTANCES,
                      false);
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

/* What follows the last block. */
static bool ends_well(Place *at) {
    fill_at_end(at);
    align(at);
    if (at->end - at->next != 4 || at->out != at->stop) return false;
    uint32_t said = (uint32_t)at->next[0] << 24 | at->next[1] << 16 | at->next[2] << 8 | at->next[3];
    return said == adler32(at->start, (size_t)(at->stop - at->start));
}

/* To the codes of the next block that has any, or to the end. */
static void read_headers(Stream *stream) {
    while (stream->state == AT_HEADER) {
        if (stream->last) {
            stream->state = ends_well(&stream->at) ? ENDED : BROKEN;
            return;
        }
        if (!stream->blocks--) {
            stream->state = BROKEN;
            return;
        }
        stream->last = take(stream, 1);
        unsigned kind = take(stream, 2);
        if (stream->state == BROKEN) return;
        bool good = kind == 0   ? copy_stored(stream)
                    : kind == 1 ? fixed_tables(stream)
                    : kind == 2 ? read_tables(stream)
                                : false;
        if (!good)
            stream->state = BROKEN;
        else if (kind)
            stream->state = IN_CODES;
    }
}
