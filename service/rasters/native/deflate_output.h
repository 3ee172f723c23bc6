/* The bytes that literals and matches come to (RFC 1951, 3.2.3). */
#pragma once

#include "deflate_blocks.h"
#include "deflate_steps.h"

#define BEHIND_OUTPUT (2 * WIDE) /* bytes behind the output that are ours */

static inline void copy8(uint8_t *to, const uint8_t *from) {
    uint64_t piece;
    memcpy(&piece, from, 8);
    memcpy(to, &piece, 8);
}

static inline void copy16(uint8_t *to, const uint8_t *from) {
    uint8_t piece[WIDE];
    memcpy(piece, from, WIDE);
    memcpy(to, piece, WIDE);
}

/* `to` is behind what was written; up to seven bytes behind the match are overwritten. */
static inline void copy_match(uint8_t *to, size_t distance, size_t length) {
    const uint8_t *from = to - distance, *end = to + length;
    if (distance >= 8) {
        copy8(to, from);
        for (to += 8, from += 8; to < end; to += 8, from += 8) copy8(to, from);
    } else if (distance == 1) {
        memset(to, *from, length);
    } else {
        while (to < end) *to++ = *from++;
    }
}

static inline size_t number_of(uint32_t entry, uint64_t bits) { return VALUE(entry) + extra_of(entry, bits); }

/* Whatever code comes next. False where none may come, or its bytes may not. */
static bool one_symbol(Stream *stream) {
    const Codes *codes = &stream->codes;
    uint64_t bits = next_bits(stream);
    uint32_t entry = look_up(codes->symbols, codes->long_symbols, SYMBOLS, bits);
    if (entry & EXCEPTION) {
        stream->state = AT_HEADER;
        return entry & END_OF_BLOCK && skip(stream, VALUE(entry));
    }
    if (!skip(stream, ALL_BITS(entry))) return false;
    if (!(entry & MATCH)) {
        if (stream->out == stream->stop) return false;
        *stream->out++ = (uint8_t)VALUE(entry);
        return true;
    }
    size_t length = SHORT_LENGTH(entry);
    if (entry & THEN_DISTANCE) {
        length = number_of(entry, bits);
        bits = next_bits(stream);
        entry = look_up(codes->distances, codes->long_distances, DISTANCES, bits);
        if (entry & EXCEPTION || !skip(stream, ALL_BITS(entry))) return false;
    }
    const size_t distance = number_of(entry, bits);
    if (distance > (size_t)(stream->out - stream->start) || length > (size_t)(stream->stop - stream->out))
        return false;
    copy_match(stream->out, distance, length);
    stream->out += length;
    return true;
}

/* What steps have found, as bytes. False where they are too many, or a match begins before them. */
static bool write_found(const Lane *lane) {
    Stream *stream = lane->stream;
    const uint8_t *packed = stream->packed + (stream->at >> 3), *literals = lane->literals;
    const uint32_t *symbols = stream->codes.symbols, *distances = stream->codes.distances;
    uint8_t *out = stream->out;
    for (unsigned i = 0; i < lane->found; i++) {
        const uint32_t place = lane->matches[i];
        const uint8_t *end = lane->literals + STEPS_TAKEN(place);
        uint64_t bits = bits_at(packed, BITS_TAKEN(place));
        uint32_t entry = symbols[lowest(bits, DEPTH)];
        size_t length = SHORT_LENGTH(entry), run = (size_t)(end - literals), steps = 1;
        if (entry & THEN_DISTANCE) {
            length = number_of(entry, bits);
            bits >>= ALL_BITS(entry);
            entry = distances[lowest(bits, DEPTH)];
            steps = 2;
        }
        const size_t distance = number_of(entry, bits);
        if (run + length > (size_t)(stream->stop - out)) return false;
        copy16(out, literals); /* most runs end within 32 */
        copy16(out + WIDE, literals + WIDE);
        for (size_t done = 2 * WIDE; done < run; done += WIDE) copy16(out + done, literals + done);
        out += run;
        if (distance > (size_t)(out - stream->start)) return false;
        copy_match(out, distance, length);
        out += length;
        literals = end + steps;
    }
    const size_t run = (size_t)(lane->literals + STEPS_TAKEN(lane->taken) - literals);
    if (run > (size_t)(stream->stop - out)) return false;
    memcpy(out, literals, run);
    stream->out = out + run;
    stream->at += BITS_TAKEN(lane->taken) - (stream->at & 7);
    return true;
}
