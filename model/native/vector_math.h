/* Exponentials and what is made of them, right to about the last bit. */
#pragma once

#include VECTORS

INLINE long rounded_up(long n, long multiple) { return (n + multiple - 1) / multiple * multiple; }

/* e^x for |x| < 87 or so: x = n ln 2 + r with |r| <= ln 2 / 2. Adding MAGIC leaves n in the lowest bits. The
   polynomial of e^r has the least largest relative error (found by weighted least squares). */
#define MAGIC 0x1.8p23f

INLINE vec bounded_exponential(vec x) {
    vec shifted = plus_product(all_lanes(MAGIC), x, all_lanes(0x1.715476p+0f));
    vec n = shifted - all_lanes(MAGIC);
    vec r = minus_product(x, n, all_lanes(0x1.62ep-1f)); /* the first digits of ln 2 ... */
    r = minus_product(r, n, all_lanes(0x1.0bfbe8p-15f)); /* ... and the others */
    vec p = all_lanes(0x1.6a2434p-10f);
    p = plus_product(all_lanes(0x1.1239e2p-7f), p, r);
    p = plus_product(all_lanes(0x1.5558f2p-5f), p, r);
    p = plus_product(all_lanes(0x1.555492p-3f), p, r);
    p = plus_product(all_lanes(0x1.fffffcp-2f), p, r);
    p = plus_product(all_lanes(1.0f), p, r);
    p = plus_product(all_lanes(1.0f), p, r);
    return times_power(p, shifted);
}

/* e^87 and e^-87 are just within what fp32 holds with all digits. */
#define LARGEST_EXPONENT 87.0f

INLINE vec minus_within_range(vec x) {
    return zeros() - smaller(larger(x, all_lanes(-LARGEST_EXPONENT)), all_lanes(LARGEST_EXPONENT));
}

/* x / (1 + e^-x). */
INLINE vec silu(vec x) {
    return x * reciprocal(all_lanes(1.0f) + bounded_exponential(minus_within_range(x)));
}
