/* LZW as TIFF has it (TIFF 6.0, section 13): codes of 9 to 12 bits, the highest bit first, which grow one
   code early.

   A string is a piece of what was unpacked before: that of the last code and the byte behind it. So each code
   copies what the output has already, and no table of bytes is kept apart. Strings of one byte are pieces of
   what lies before the output, all 256 of them.

   A stream is taken only if it begins with a clear code, and a string of it ends where the bytes do that are
   expected. What follows there is not looked at, as libtiff does not. Nothing is read or written beyond
   either end. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CLEAR_CODE 256
#define NO_STRING 257
#define FIRST_STRING 258
#define STRINGS 4096
#define SHORTEST_CODE 9
#define LONGEST_LZW_CODE 12
#define WIDE 16                    /* bytes that a copy moves at a time */
#define BEFORE_OUTPUT (256 + WIDE) /* bytes before the output that are ours */
#define CODES_AT_A_TIME 4          /* of one look at the stream: 48 bits of at least 56 */

/* A string: its start, counted from the bytes before the output, and its length. 0 is none. */
#define STRING(start, length) ((uint32_t)(start) << 12 | (uint32_t)(length))
#define START(string) ((string) >> 12)
#define LENGTH(string) ((string) & 0xFFFu)
#define MOST_LZW_BYTES ((1u << 20) - BEFORE_OUTPUT)

typedef struct {
    uint64_t bits; /* not used yet, the next is the highest; at least `count` of them are there */
    unsigned count;
    const uint8_t *next, *end; /* of the stream */
    uint8_t *base;             /* the bytes before the output, and it */
    size_t at, stop;           /* in them */
    unsigned width;            /* of a code */
    unsigned made;             /* strings; 0 before the first clear code */
    uint32_t last;             /* string; 0 after a clear code */
    uint32_t *string;
} Lzw;

/* At least 56 bits; where eight bytes can be read. */
static inline void look(Lzw *lzw) {
    uint64_t following;
    memcpy(&following, lzw->next, 8);
    lzw->bits |= __builtin_bswap64(following) >> lzw->count;
    lzw->next += (63 - lzw->count) >> 3;
    lzw->count |= 56;
}

static inline unsigned take_code(Lzw *lzw) {
    unsigned code = (unsigned)(lzw->bits >> (64 - lzw->width));
    lzw->bits <<= lzw->width;
    lzw->count -= lzw->width;
    return code;
}

/* By way of a register: what lies behind a string may be where it goes. */
static inline void copy_wide(uint8_t *to, const uint8_t *from) {
    uint8_t piece[WIDE];
    memcpy(piece, from, WIDE);
    memcpy(to, piece, WIDE);
}

/* The usual case, some codes with one look: each is a string that was made before, of WIDE bytes at most, no
   code grows meanwhile, and neither end is near. Stops before the first code that is another. */
static void usual_codes(Lzw *lzw) {
    Lzw is = *lzw;
    const unsigned width = is.width, grows = (1u << width) - 1;
    bool usual = is.last != 0;
    while (usual && is.end - is.next >= 8 && is.stop - is.at >= CODES_AT_A_TIME * WIDE &&
           is.made + CODES_AT_A_TIME < grows) {
        look(&is);
        for (int i = 0; i < CODES_AT_A_TIME; i++) {
            unsigned code = (unsigned)(is.bits >> (64 - width));
            uint32_t string = is.string[code];
            usual = code < is.made && LENGTH(string) - 1 < WIDE;
            if (!usual) break;
            take_code(&is);
            is.string[is.made++] = is.last + 1; /* a byte longer */
            copy_wide(is.base + is.at, is.base + START(string));
            is.last = STRING(is.at, LENGTH(string));
            is.at += LENGTH(string);
        }
    }
    *lzw = is;
}

/* Whatever the next code is. False where it is none that may come here. */
static bool one_code(Lzw *lzw) {
    if (lzw->end - lzw->next >= 8)
        look(lzw);
    else
        for (; lzw->count < 56 && lzw->next < lzw->end; lzw->count += 8)
            lzw->bits |= (uint64_t)*lzw->next++ << (56 - lzw->count);
    if (lzw->count < lzw->width) return false;
    unsigned code = take_code(lzw);
    if (code == CLEAR_CODE) {
        lzw->width = SHORTEST_CODE;
        lzw->made = FIRST_STRING;
        lzw->last = 0;
        return true;
    }
    if (lzw->last) {
        if (lzw->made == STRINGS || code > lzw->made || code == NO_STRING) return false;
        lzw->string[lzw->made++] = lzw->last + 1;
        lzw->width += lzw->made == (1u << lzw->width) - 1 && lzw->width < LONGEST_LZW_CODE;
    } else if (lzw->made == 0 || code > 255) {
        return false;
    }
    const uint32_t string = lzw->string[code];
    const uint8_t *from = lzw->base + START(string);
    uint8_t *to = lzw->base + lzw->at;
    const size_t length = LENGTH(string), room = lzw->stop - lzw->at;
    if (length > room) return false;
    lzw->last = STRING(lzw->at, length);
    lzw->at += length;
    /* The string that was just made may reach into itself. */
    if (room >= length + WIDE && code + 1 != lzw->made)
        for (size_t i = 0; i < length; i += WIDE) copy_wide(to + i, from + i);
    else
        for (size_t i = 0; i < length; i++) to[i] = from[i];
    return true;
}

/* Unpacks a stream to `output`, before which there are BEFORE_OUTPUT bytes that are overwritten. */
static bool unpack_lzw(const uint8_t *packed, size_t size, uint8_t *output, size_t expected) {
    if (expected > MOST_LZW_BYTES) return false;
    uint32_t strings[STRINGS];
    uint8_t *base = output - BEFORE_OUTPUT;
    for (unsigned i = 0; i < 256; i++) {
        strings[i] = STRING(i, 1);
        base[i] = (uint8_t)i;
    }
    strings[CLEAR_CODE] = strings[NO_STRING] = STRING(0, 0);
    memset(base + 256, 0, WIDE);
    Lzw lzw = {.next = packed,
               .end = packed + size,
               .base = base,
               .at = BEFORE_OUTPUT,
               .stop = BEFORE_OUTPUT + expected,
               .width = SHORTEST_CODE,
               .string = strings};
    while (lzw.at < lzw.stop) {
        usual_codes(&lzw);
        if (!one_code(&lzw)) return false;
    }
    return true;
}
