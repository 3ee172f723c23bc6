/* Prefix codes of deflate (RFC 1951, 3.2.2) as tables that the next bits of a stream are looked up in.

   An entry says how many bits its code has and what it means. Codes longer than a table is deep lead to a
   table of the bits that follow. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LONGEST_CODE 15

/* An entry: what the code means in the upper half, its extra bits and its own bits in the lower. */
#define LITERAL 0x80000000u /* a byte, in bits 16 to 23 */
#define EXCEPTION 0x8000u   /* neither a literal nor a number; one of the next three */
#define FOLLOWING 0x4000u   /* the place of the table of the bits that follow, from bit 16 */
#define END_OF_BLOCK 0x2000u
#define NO_CODE 0x1000u
#define CODE_BITS(entry) ((entry) & 0xFu)
#define EXTRA_BITS(entry) ((entry) >> 8 & 0xFu)
#define VALUE(entry) ((entry) >> 16)

/* Depth of a table, and the entries that it may come to: what follows a prefix has two codes at least. */
#define SYMBOL_DEPTH 10
#define DISTANCE_DEPTH 8
#define LENGTH_DEPTH 7
#define MOST_SYMBOLS 288
#define MOST_DISTANCES 32
#define ENTRIES(depth, codes) ((1 << (depth)) + (codes) / 2 * (1 << (LONGEST_CODE - (depth))))

typedef uint32_t SymbolTable[ENTRIES(SYMBOL_DEPTH, MOST_SYMBOLS)];
typedef uint32_t DistanceTable[ENTRIES(DISTANCE_DEPTH, MOST_DISTANCES)];

static inline unsigned reversed(unsigned code, unsigned bits) {
    code = (code & 0x5555) << 1 | (code & 0xAAAA) >> 1;
    code = (code & 0x3333) << 2 | (code & 0xCCCC) >> 2;
    code = (code & 0x0F0F) << 4 | (code & 0xF0F0) >> 4;
    code = (code & 0x00FF) << 8 | code >> 8;
    return code >> (16 - bits);
}

/* Makes the table of the codes with these lengths (0: no code), of which the first mean themselves and the
   others the entries of `meanings`. False where they are no complete set; `sparse` allows none or one code.
 */
static bool make_table(uint32_t *table, unsigned depth, const uint8_t *lengths, unsigned codes,
                       unsigned literals, const uint32_t *meanings, bool sparse) {
    unsigned number[LONGEST_CODE + 1] = {0}, place[LONGEST_CODE + 2] = {0};
    uint16_t sorted[MOST_SYMBOLS];
    for (unsigned i = 0; i < codes; i++) number[lengths[i]]++;
    unsigned used = codes - number[0];
    int left = 1;
    for (unsigned bits = 1; bits <= LONGEST_CODE; bits++) {
        left = 2 * left - (int)number[bits];
        if (left < 0) return false;
        place[bits + 1] = place[bits] + number[bits];
    }
    if (left > 0) {
        if (!sparse || used > 1 || (used && !number[1])) return false;
        for (unsigned i = 0; i < 1u << depth; i++) table[i] = EXCEPTION | NO_CODE;
    }
    for (unsigned i = 0; i < codes; i++)
        if (lengths[i]) sorted[place[lengths[i]]++] = (uint16_t)i;

    const unsigned first = 1u << depth, following = 1u << (LONGEST_CODE - depth);
    unsigned code = 0, bits = 1, prefix = first, room = first;
    for (unsigned i = 0; i < used; i++, code++) {
        unsigned length = lengths[sorted[i]];
        for (; bits < length; bits++) code <<= 1;
        unsigned next = reversed(code, length);
        unsigned symbol = sorted[i];
        uint32_t entry = (symbol < literals ? LITERAL | symbol << 16 : meanings[symbol - literals]) | length;
        if (length <= depth) {
            for (unsigned at = next; at < first; at += 1u << length) table[at] = entry;
            continue;
        }
        if ((next & (first - 1)) != prefix) {
            prefix = next & (first - 1);
            table[prefix] = EXCEPTION | FOLLOWING | room << 16;
            room += following;
        }
        for (unsigned at = next >> depth; at < following; at += 1u << (length - depth))
            table[VALUE(table[prefix]) + at] = entry;
    }
    return true;
}
