/* LZW as TIFF has it (TIFF 6.0, section 13): codes of 9 to 12 bits, the highest bit first, which grow one
   code early.

   A string is a piece of what was unpacked before: that of the last code and the byte behind it. So each code
   copies what the output has already, and no table of bytes is kept apart.

   A stream is taken only if it begins with a clear code, and a string of it ends where the bytes do that are
   expected. What follows there is not looked at, as libtiff does not. Nothing is read or written beyond
   either end. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CLEAR_CODE 256
#define FIRST_STRING 258
#define STRINGS 4096
#define SHORTEST_CODE 9
#define LONGEST_LZW_CODE 12
#define WIDE 16 /* bytes that a copy moves at a time */

typedef struct {
    uint32_t start, length;
} String;

static bool unpack_lzw(const uint8_t *packed, size_t size, uint8_t *out, size_t expected) {
    String string[STRINGS];
    uint8_t bytes[256 + WIDE] = {0};
    for (unsigned i = 0; i < 256; i++) {
        string[i] = (String){i, 1};
        bytes[i] = (uint8_t)i;
    }
    uint64_t bits = 0; /* the next is the highest; at least `count` of them are there */
    size_t next = 0, at = 0;
    unsigned count = 0, width = SHORTEST_CODE, made = 0; /* no strings before the first clear code */
    String last = {0, 0};
    while (at < expected) {
        if (size - next >= 8) {
            uint64_t following;
            memcpy(&following, packed + next, 8);
            bits |= __builtin_bswap64(following) >> count;
            next += (63 - count) >> 3;
            count |= 56;
        } else {
            for (; count < 56 && next < size; count += 8) bits |= (uint64_t)packed[next++] << (56 - count);
        }
        if (count < width) return false;
        unsigned code = (unsigned)(bits >> (64 - width));
        bits <<= width;
        count -= width;
        if (code == CLEAR_CODE) {
            width = SHORTEST_CODE;
            made = FIRST_STRING;
            last.length = 0;
            continue;
        }
        if (last.length) {
            if (made == STRINGS || code > made || code == CLEAR_CODE + 1) return false;
            string[made++] = (String){last.start, last.length + 1};
            width += made == (1u << width) - 1 && width < LONGEST_LZW_CODE;
        } else if (made == 0 || code > 255) {
            return false;
        }
        const uint8_t *from = (code < 256 ? bytes : out) + string[code].start;
        uint8_t *to = out + at;
        size_t length = string[code].length, room = expected - at;
        if (length > room) return false;
        last = (String){(uint32_t)at, (uint32_t)length};
        at += length;
        /* The string that was just made may reach into itself. */
        if (room >= length + WIDE && code + 1 != made) {
            for (size_t i = 0; i < length; i += WIDE) {
                uint8_t piece[WIDE]; /* what lies behind the string may be where it goes */
                memcpy(piece, from + i, WIDE);
                memcpy(to + i, piece, WIDE);
            }
        } else {
            for (size_t i = 0; i < length; i++) to[i] = from[i];
        }
    }
    return true;
}
