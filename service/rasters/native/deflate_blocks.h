/* What stands around the codes of a deflated stream: headers of blocks, tables, stored bytes, what follows
   (RFC 1950, RFC 1951). */
#pragma once

#include "adler32.h"
#include "deflate_stream.h"
#include "deflate_symbols.h"

typedef struct {
    uint8_t symbols[MOST_SYMBOLS], distances[MOST_DISTANCES];
} Lengths;

/* The shortest matches get entries of their own where the code of the distance, too, is in the bits that are
   looked up. */
static void join(Codes *codes, const Lengths *lengths, const uint16_t *code_of) {
    for (unsigned length = SHORTEST_MATCH; length <= LONGEST_SHORT_MATCH; length++) {
        const unsigned symbol = 257 + length - SHORTEST_MATCH, bits = lengths->symbols[symbol];
        if (!bits || bits >= DEPTH) continue;
        for (unsigned rest = 0; rest < 1u << (DEPTH - bits); rest++) {
            const uint32_t distance = codes->distances[rest];
            if (distance & EXCEPTION || CODE_BITS(distance) > DEPTH - bits ||
                ALL_BITS(distance) + bits > MOST_MATCH_BITS)
                continue;
            codes->symbols[code_of[symbol] | rest << bits] = (distance | MATCH | WITH_SHORT(length)) + bits;
        }
    }
}

static bool make_codes(Codes *codes, const Lengths *lengths) {
    uint16_t code_of[MOST_SYMBOLS], unused[MOST_DISTANCES];
    if (!make_table(codes->symbols, DEPTH, codes->long_symbols, lengths->symbols, MOST_SYMBOLS, SYMBOLS,
                    false, code_of) ||
        !make_table(codes->distances, DEPTH, codes->long_distances, lengths->distances, MOST_DISTANCES,
                    DISTANCES, true, unused))
        return false;
    join(codes, lengths, code_of);
    return true;
}

#define NO_LENGTH 16 /* before the first */

/* The lengths of a block's codes, which are packed themselves (RFC 1951, 3.2.7). */
static bool read_codes(Stream *stream) {
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint32_t table[1 << LENGTH_DEPTH];
    uint16_t unused[PACKED_SYMBOLS];
    uint8_t packed[PACKED_SYMBOLS] = {0}, all[MOST_SYMBOLS + MOST_DISTANCES + MOST_REPEATED];
    const unsigned symbols = take(stream, 5) + 257, distances = take(stream, 5) + 1;
    const unsigned packs = take(stream, 4) + 4, number = symbols + distances;
    if (symbols > 286 || distances > 30) return false;
    for (unsigned i = 0; i < packs; i++) packed[order[i]] = (uint8_t)take(stream, 3);
    if (!make_table(table, LENGTH_DEPTH, NULL, packed, PACKED_SYMBOLS, PACKED, false, unused)) return false;
    unsigned i = 0, length = NO_LENGTH;
    while (i < number) {
        uint64_t bits = next_bits(stream);
        unsigned used = 0;
        for (int turn = 0; turn < 4 /* 56 bits */ && i < number; turn++) {
            const uint32_t entry = table[lowest(bits, LENGTH_DEPTH)];
            const unsigned value = PACKED_SYMBOL(entry);
            const unsigned times = PACKED_TIMES(entry) + extra_of(entry, bits);
            used += ALL_BITS(entry);
            bits >>= ALL_BITS(entry);
            length = value < 16 ? value : value == 16 ? length : 0;
            if (length == NO_LENGTH) return false;
            memset(all + i, (int)length, 16);
            if (times > 16) memset(all + i, (int)length, times);
            i += times;
        }
        if (!skip(stream, used)) return false;
    }
    if (i > number || !all[256]) return false;
    Lengths lengths = {{0}, {0}};
    memcpy(lengths.symbols, all, symbols);
    memcpy(lengths.distances, all + symbols, distances);
    return make_codes(&stream->codes, &lengths);
}

/* RFC 1951, 3.2.6. */
static bool fixed_codes(Stream *stream) {
    Lengths lengths;
    for (int i = 0; i < MOST_SYMBOLS; i++) lengths.symbols[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    memset(lengths.distances, 5, MOST_DISTANCES);
    return make_codes(&stream->codes, &lengths);
}

/* RFC 1951, 3.2.4. */
static bool copy_stored(Stream *stream) {
    align(stream);
    const unsigned size = take(stream, 16), inverse = take(stream, 16);
    if (stream->state == BROKEN || (size ^ inverse) != 0xFFFF) return false;
    if (size > bits_left(stream) / 8 || size > stream->stop - stream->out) return false;
    memcpy(stream->out, stream->packed + stream->at / 8, size);
    stream->out += size;
    stream->at += 8 * (size_t)size;
    return true;
}

/* What follows the last block. */
static bool ends_well(Stream *stream) {
    align(stream);
    if (bits_left(stream) != 32 || stream->out != stream->stop) return false;
    const uint32_t said = __builtin_bswap32((uint32_t)next_bits(stream));
    return said == adler32(stream->start, (size_t)(stream->stop - stream->start));
}

/* To the codes of the next block that has any, or to the end. */
static void read_headers(Stream *stream) {
    while (stream->state == AT_HEADER) {
        if (stream->last) {
            stream->state = ends_well(stream) ? ENDED : BROKEN;
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
                    : kind == 1 ? fixed_codes(stream)
                    : kind == 2 ? read_codes(stream)
                                : false;
        if (!good)
            stream->state = BROKEN;
        else if (kind)
            stream->state = IN_CODES;
    }
}
