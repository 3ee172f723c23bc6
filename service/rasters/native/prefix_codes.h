/* Prefix codes of deflate (RFC 1951, 3.2.2) as tables that the next bits of a stream are looked up in.

   An entry says how many bits its code has, with the extra bits behind it, what it means, and in which table
   the bits behind are looked up. Codes longer than a table is deep lead to a table of the bits that follow.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LONGEST_CODE 15
#define MOST_SYMBOLS 288
#define MOST_DISTANCES 32
#define SHORTEST_MATCH 3
#define LONGEST_SHORT_MATCH 6

/* An entry: bits of code and extra bits in the lowest six, of the extra bits alone in the next four; from bit
   16 what the code means, a byte, or the least of the lengths or distances that the extra bits choose from.
 */
#define ALL_BITS(entry) ((entry) & 0x3Fu)
#define EXTRA_BITS(entry) ((entry) >> 6 & 0xFu)
#define CODE_BITS(entry) (ALL_BITS(entry) - EXTRA_BITS(entry))
#define VALUE(entry) ((entry) >> 16 & 0x7FFFu)
#define USUAL 0x8000u /* not an exception */
#define MATCH 0x80000000u
#define THEN_DISTANCE 0x1000u /* a length, the code of its distance comes next */

/* Of a match with its distance in one entry, the length, which is short, stands in bits 10 and 11. */
#define WITH_SHORT(length) (((length) - SHORTEST_MATCH) << 10)
#define SHORT_LENGTH(entry) (((entry) >> 10 & 3u) + SHORTEST_MATCH)

/* An exception has no bits in the lowest six, and what it is in the next ones. */
#define EXCEPTION 0x2000u
#define END_OF_BLOCK 0x40u /* its value is the bits of its code */
#define FOLLOWING 0x80u    /* its value is the place of the table of the bits that follow */
#define LONG 0x100u /* more bits than a step may take; its value is the symbol and the bits of its code */
#define NO_CODE 0u

/* How deep a table is, and how many entries the tables of what follows come to: a prefix that is followed by
   anything is that of two codes at least. */
#define DEPTH 10
#define LENGTH_DEPTH 7
#define FOLLOWING_ENTRIES(codes) ((codes) / 2 << (LONGEST_CODE - DEPTH))

/* With a length in 15 bits, 57 are enough for distance, length, distance as for distance, match, match. */
#define MOST_DISTANCE_BITS 21
#define MOST_MATCH_BITS 18

/* DEPTH bits in reverse: codes begin with their highest bit. */
static inline unsigned reversed(unsigned code) {
    static const uint8_t five[32] = {0, 16, 8, 24, 4, 20, 12, 28, 2, 18, 10, 26, 6, 22, 14, 30,
                                     1, 17, 9, 25, 5, 21, 13, 29, 3, 19, 11, 27, 7, 23, 15, 31};
    return (unsigned)five[code & 31] << 5 | five[code >> 5];
}

/* The entry of a code of `length` bits. */
static inline uint32_t entry_of(uint32_t meaning, unsigned length) {
    return meaning & EXCEPTION ? meaning | length << 16 : meaning + length;
}

#define PARTS 4 /* of as many codes each */

/* Puts the codes with these lengths (0: no code) in the order of their bits, and says how many there are of
   each length, and in all. Each of PARTS parts is counted and sorted by itself: neighbours are often alike,
   and each would wait for the one before. */
static unsigned sort_codes(const uint8_t *lengths, unsigned codes, uint16_t *sorted, unsigned *of_length) {
    uint16_t number[PARTS][LONGEST_CODE + 1] = {{0}};
    const unsigned part = codes / PARTS;
    for (unsigned i = 0; i < part; i++)
        for (unsigned j = 0; j < PARTS; j++) number[j][lengths[i + j * part]]++;
    unsigned place = 0;
    for (unsigned bits = 1; bits <= LONGEST_CODE + 1; bits++) {
        of_length[bits & LONGEST_CODE] = place;
        for (unsigned j = 0; j < PARTS; j++) {
            const unsigned these = number[j][bits & LONGEST_CODE];
            number[j][bits & LONGEST_CODE] = (uint16_t)place;
            place += these;
        }
        of_length[bits & LONGEST_CODE] = place - of_length[bits & LONGEST_CODE];
    }
    for (unsigned i = 0; i < part; i++)
        for (unsigned j = 0; j < PARTS; j++)
            sorted[number[j][lengths[i + j * part]]++] = (uint16_t)(i + j * part);
    return codes - of_length[0];
}

/* Makes the table of the codes with these lengths and meanings; `following` has room for longer ones.
   `code_of` says the bits of the others, in reverse, as they are looked up. False where they are no complete
   set; a table of distances may have none or one. */
static bool make_table(uint32_t *table, unsigned depth, uint32_t *following, const uint8_t *lengths,
                       unsigned codes, const uint32_t *meanings, bool distances, uint16_t *code_of) {
    const uint32_t exception = distances ? EXCEPTION | THEN_DISTANCE : EXCEPTION;
    unsigned of_length[LONGEST_CODE + 1];
    uint16_t sorted[MOST_SYMBOLS];
    const unsigned used = sort_codes(lengths, codes, sorted, of_length);
    int left = 1;
    for (unsigned bits = 1; bits <= LONGEST_CODE; bits++) {
        left = 2 * left - (int)of_length[bits];
        if (left < 0) return false;
    }
    if (left > 0) {
        if (!distances || used > 1 || used != of_length[1]) return false;
        for (unsigned i = 0; i < 1u << depth; i++)
            table[i] = used && !(i & 1) ? entry_of(meanings[sorted[0]], 1) : exception | NO_CODE;
        return true;
    }

    /* The table of one bit more is that of one bit less, twice, and the codes that have this bit. */
    const uint16_t *symbol = sorted;
    unsigned code = 0; /* and zeros, DEPTH bits in all */
    for (unsigned bits = 1; bits <= depth; bits++) {
        memcpy(table + (1u << bits >> 1), table, sizeof *table << bits >> 1);
        for (unsigned i = 0; i < of_length[bits]; i++, symbol++, code += 1u << (DEPTH - bits)) {
            const uint32_t entry = entry_of(meanings[*symbol], bits);
            const unsigned at = reversed(code);
            code_of[*symbol] = (uint16_t)at;
            table[at] = ALL_BITS(entry) <= MOST_DISTANCE_BITS
                            ? entry
                            : exception | LONG | (*symbol << 4 | bits) << 16;
        }
    }
    const unsigned beyond = 1u << (LONGEST_CODE - DEPTH);
    unsigned room = 0;
    code <<= LONGEST_CODE - DEPTH; /* and now so many in all */
    for (unsigned bits = depth + 1; bits <= LONGEST_CODE; bits++)
        for (unsigned i = 0; i < of_length[bits]; i++, symbol++, code += 1u << (LONGEST_CODE - bits)) {
            uint32_t *prefix = table + reversed(code >> (LONGEST_CODE - DEPTH));
            const unsigned rest = reversed((code & (beyond - 1)) << (2 * DEPTH - LONGEST_CODE));
            if (!rest) { /* the first with this prefix */
                *prefix = exception | FOLLOWING | room << 16;
                room += beyond;
            }
            for (unsigned at = rest; at < beyond; at += 1u << (bits - DEPTH))
                following[VALUE(*prefix) + at] = entry_of(meanings[*symbol], bits);
        }
    return true;
}
