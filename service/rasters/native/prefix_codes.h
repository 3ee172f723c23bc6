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

/* The code after another of as many bits, both with their bits in reverse; 0 after the last. */
static inline unsigned after(unsigned code, unsigned bits) {
    unsigned zeros = ~code & ((1u << bits) - 1);
    if (!zeros) return 0;
    unsigned highest = 1u << (31 - __builtin_clz(zeros));
    return (code & (highest - 1)) | highest;
}

/* Makes the table of the codes with these lengths (0: no code), of which the first mean themselves and the
   others the entries of `meanings`. False where they are no complete set; `sparse` allows none or one code.
 */
static bool make_table(uint32_t *table, unsigned depth, const uint8_t *lengths, unsigned codes,
                       unsigned literals, const uint32_t *meanings, bool sparse) {
    unsigned number[2][LONGEST_CODE + 1] = {{0}}, place[LONGEST_CODE + 2] = {0};
    uint16_t sorted[MOST_SYMBOLS];
    for (unsigned i = 0; i < codes; i++)
        number[i & 1][lengths[i]]++; /* in turn: neighbours are often alike */
    const unsigned used = codes - number[0][0] - number[1][0];
    int left = 1;
    for (unsigned bits = 1; bits <= LONGEST_CODE; bits++) {
        const unsigned of_these = number[0][bits] + number[1][bits];
        left = 2 * left - (int)of_these;
        if (left < 0) return false;
        place[bits + 1] = place[bits] + of_these;
    }
    place[0] = used; /* what has no code comes last */
    for (unsigned i = 0; i < codes; i++) sorted[place[lengths[i]]++] = (uint16_t)i;
    if (left > 0) {
        if (!sparse || used > 1 || (used && lengths[sorted[0]] != 1)) return false;
        for (unsigned i = 0; i < 1u << depth; i++)
            table[i] = used && !(i & 1) ? meanings[sorted[0] - literals] | 1 : EXCEPTION | NO_CODE;
        return true;
    }

    /* The table of one bit more is that of one bit less, twice, and the codes that have this bit. */
    const unsigned following = 1u << (LONGEST_CODE - depth);
    unsigned code = 0, bits = 0, prefix = 1u << depth, room = 1u << depth;
    for (unsigned i = 0; i < used; i++) {
        const unsigned symbol = sorted[i], length = lengths[symbol];
        for (; bits < length; bits++)
            if (bits < depth) memcpy(table + (1u << bits), table, sizeof *table << bits);
        uint32_t entry = (symbol < literals ? LITERAL | symbol << 16 : meanings[symbol - literals]) | length;
        if (length <= depth) {
            table[code] = entry;
        } else {
            if ((code & ((1u << depth) - 1)) != prefix) {
                prefix = code & ((1u << depth) - 1);
                table[prefix] = EXCEPTION | FOLLOWING | room << 16;
                room += following;
            }
            for (unsigned at = code >> depth; at < following; at += 1u << (length - depth))
                table[VALUE(table[prefix]) + at] = entry;
        }
        code = after(code, length);
    }
    for (; bits < depth; bits++) memcpy(table + (1u << bits), table, sizeof *table << bits);
    return true;
}
