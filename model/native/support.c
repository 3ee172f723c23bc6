/* Which of the kernels this CPU, and the system on it, can run. Compiled for any x86-64.

   Asked of CPUID itself (Intel's manual, volume 2A), since not every compiler's own question comes with an
   answer. */
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))
#define BIT(n) (1u << (n))

/* Leaf 1, ECX: FMA, POPCNT, that the system switches extended registers, and AVX. */
#define BASE (BIT(12) | BIT(23) | BIT(27) | BIT(28))
/* Leaf 7, EBX: BMI1, AVX2, BMI2; and of AVX-512 F, DQ, CD, BW, VL. */
#define AVX2 (BIT(3) | BIT(5) | BIT(8))
#define AVX512 (BIT(16) | BIT(17) | BIT(28) | BIT(30) | BIT(31))
#define AVX512_BF16 BIT(5)        /* leaf 7.1, EAX */
#define AMX (BIT(22) | BIT(24))   /* leaf 7, EDX: BF16, TILE */
#define SAVED_AVX 0x06u           /* XCR0: SSE, AVX */
#define SAVED_AVX512 0xE0u        /* ... and the three parts of AVX-512 */
#define REQUEST_PERMISSION 0x1023 /* ARCH_REQ_XCOMP_PERM of Linux: a process has to ask once ... */
#define XTILEDATA 18              /* ... for the registers of AMX */

static int has(unsigned leaf, unsigned subleaf, int place, unsigned bits) {
    unsigned found[4] = {0};
    if (!__get_cpuid_count(leaf, subleaf, &found[0], &found[1], &found[2], &found[3])) return 0;
    return (found[place] & bits) == bits;
}

/* Asks for XCR0, which may be read where BASE is found. */
static int saves(unsigned registers) {
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & registers) == registers;
}

EXPORTED int landmoe_supports_avx2(void) {
    return has(1, 0, 2, BASE) && has(7, 0, 1, AVX2) && saves(SAVED_AVX);
}

EXPORTED int landmoe_supports_fp32(void) {
    return landmoe_supports_avx2() && has(7, 0, 1, AVX512) && saves(SAVED_AVX512);
}

EXPORTED int landmoe_supports_bf16(void) { return landmoe_supports_fp32() && has(7, 1, 0, AVX512_BF16); }

EXPORTED int landmoe_supports_amx(void) {
    return landmoe_supports_bf16() && has(7, 0, 3, AMX) &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, XTILEDATA) == 0;
}
