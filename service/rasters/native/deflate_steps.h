/* Codes of deflated streams, step by step, without a branch that depends on what they are (RFC 1951, 3.2.3).

   Where a match comes among literals cannot be foreseen, and a CPU that goes the wrong way loses the time of
   many symbols. So a step takes whatever code is next, and its entry says what table the next step looks
   into: a match is two steps, but for those that one entry has whole. What a step finds is put down as if it
   was a literal, and its place as if it was that of a match; only where either comes next depends on the
   code. From that deflate_output.h makes the bytes.

   Where a code ends is known only once it was looked up, so in one stream each step waits for the one
   before. Strips and tiles are streams of their own: while one waits, the others go on. */
#pragma once

#include "deflate_stream.h"

#define LANES 4 /* streams at a time */
#define STEPS 3 /* for which one look at the stream is enough */
#define MOST_ROUNDS 200
#define MOST_STEPS (STEPS * MOST_ROUNDS)
#define ROUND_BITS 57
#define WIDE 16 /* bytes that are copied at a time */

/* A place in the steps of a stream: bits taken, steps taken. */
#define STEP USUAL
#define BITS_TAKEN(place) ((place) & (STEP - 1))
#define STEPS_TAKEN(place) ((place) / STEP)
_Static_assert(MOST_ROUNDS *ROUND_BITS + 7 < STEP, "a place has room for the bits of all steps");

typedef struct {
    Stream *stream;
    uint32_t taken;                          /* place behind the last step */
    unsigned found;                          /* matches */
    uint32_t matches[MOST_STEPS];            /* places before them */
    uint8_t literals[MOST_STEPS + 2 * WIDE]; /* of all steps; those of matches are nothing */
} Lane;

/* Rounds of steps that a stream has bits for, at least, with eight bytes to look at behind the last. */
static inline size_t rounds_left(const Stream *stream) {
    const size_t bits = bits_left(stream);
    return bits < 64 ? 0 : (bits - 64) / ROUND_BITS;
}

/* Steps of all streams in turn, until one comes to an exception: it takes no bits, so that its stream comes
   to it again until all stop. */
static inline __attribute__((always_inline)) void take_steps(Lane *const lane, const int lanes,
                                                             unsigned rounds) {
    const uint8_t *packed[LANES];
    const char *codes[LANES], *table[LANES];
    uint32_t taken[LANES], *match[LANES];
    for (int i = 0; i < lanes; i++) {
        const Stream *stream = lane[i].stream;
        packed[i] = stream->packed + (stream->at >> 3);
        codes[i] = table[i] = (const char *)&stream->codes;
        taken[i] = stream->at & 7;
        match[i] = lane[i].matches;
    }
    uint32_t any = 0;
    unsigned at = 0;
    for (; at < STEPS * rounds && !(any & EXCEPTION); at += STEPS) {
        any = 0;
        for (int i = 0; i < lanes; i++) {
            uint64_t bits = bits_at(packed[i], BITS_TAKEN(taken[i]));
            uint32_t entry = 0;
            for (int step = 0; step < STEPS; step++) {
                entry = ((const uint32_t *)table[i])[lowest(bits, DEPTH)];
                lane[i].literals[at + step] = (uint8_t)(entry >> 16);
                *match[i] = taken[i];
                match[i] += entry / MATCH;
                table[i] = codes[i] + (entry & THEN_DISTANCE);
                taken[i] += entry & (STEP | 0x3F);
                bits >>= ALL_BITS(entry);
            }
            any |= entry;
        }
    }
    for (int i = 0; i < lanes; i++) {
        lane[i].stream->unusual = STEPS_TAKEN(taken[i]) < at;
        /* A match of which the distance was not taken is left for later. */
        if (table[i] != codes[i]) taken[i] = *--match[i];
        lane[i].taken = taken[i];
        lane[i].found = (unsigned)(match[i] - lane[i].matches);
    }
}
