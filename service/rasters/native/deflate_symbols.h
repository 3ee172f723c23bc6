/* What the codes of deflate mean, as entries of tables without the bits of a code (RFC 1951, 3.2.5
   and 3.2.7): bytes, and numbers as their bases and extra bits. */
#pragma once

#include "prefix_codes.h"

#define LONGEST_MATCH 258
#define MOST_REPEATED 138
#define PACKED_SYMBOLS 20 /* the last is none */

#define NUMBER(base, extra) (USUAL | (uint32_t)(base) << 16 | (extra) << 6 | (extra))

/* Literals and lengths. */
#define L(byte) (USUAL | (uint32_t)(byte) << 16)
#define L4(byte) L(byte), L(byte + 1), L(byte + 2), L(byte + 3)
#define L16(byte) L4(byte), L4(byte + 4), L4(byte + 8), L4(byte + 12)
#define L64(byte) L16(byte), L16(byte + 16), L16(byte + 32), L16(byte + 48)
#define N(base, extra) (NUMBER(base, extra) | MATCH | THEN_DISTANCE)
#define NONE (EXCEPTION | NO_CODE)
static const uint32_t SYMBOLS[MOST_SYMBOLS] = {
    L64(0),
    L64(64),
    L64(128),
    L64(192),
    EXCEPTION | END_OF_BLOCK,
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
    NONE,
};

#define D(base, extra) NUMBER(base, extra)
#define NO_DISTANCE (EXCEPTION | THEN_DISTANCE | NO_CODE)
static const uint32_t DISTANCES[MOST_DISTANCES] = {
    D(1, 0),     D(2, 0),     D(3, 0),     D(4, 0),      D(5, 1),      D(7, 1),      D(9, 2),     D(13, 2),
    D(17, 3),    D(25, 3),    D(33, 4),    D(49, 4),     D(65, 5),     D(97, 5),     D(129, 6),   D(193, 6),
    D(257, 7),   D(385, 7),   D(513, 8),   D(769, 8),    D(1025, 9),   D(1537, 9),   D(2049, 10), D(3073, 10),
    D(4097, 11), D(6145, 11), D(8193, 12), D(12289, 12), D(16385, 13), D(24577, 13), NO_DISTANCE, NO_DISTANCE,
};

/* Lengths of codes (3.2.7): one, or how often at least the one before, or 0, is repeated. */
#define PACKED_SYMBOL(entry) (VALUE(entry) & 31)
#define PACKED_TIMES(entry) (VALUE(entry) >> 5)
#define ONCE(length) NUMBER(1 << 5 | (length), 0)
#define REPEATED(symbol, least, extra) NUMBER((least) << 5 | (symbol), extra)
static const uint32_t PACKED[PACKED_SYMBOLS] = {
    ONCE(0),
    ONCE(1),
    ONCE(2),
    ONCE(3),
    ONCE(4),
    ONCE(5),
    ONCE(6),
    ONCE(7),
    ONCE(8),
    ONCE(9),
    ONCE(10),
    ONCE(11),
    ONCE(12),
    ONCE(13),
    ONCE(14),
    ONCE(15),
    REPEATED(16, 3, 2),
    REPEATED(17, 3, 3),
    REPEATED(18, 11, 7),
    NONE,
};

#undef N
#undef D
#undef NONE
#undef NO_DISTANCE
#undef NUMBER
#undef ONCE
#undef REPEATED
#undef L
#undef L4
#undef L16
#undef L64
