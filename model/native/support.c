/* Which of the kernels this CPU, and the system on it, can run. Compiled for any x86-64. */
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))
#define AMX_BF16 (1u << 22) /* of CPUID leaf 7, EDX */
#define AMX_TILE (1u << 24)
/* ARCH_REQ_XCOMP_PERM and XFEATURE_XTILEDATA of the Linux kernel: a process has to ask for these registers
 * once. */
#define REQUEST_PERMISSION 0x1023
#define XTILEDATA 18

/* __builtin_cpu_supports also asks whether the system saves the registers. */
EXPORTED int landmoe_supports_fp32(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}

EXPORTED int landmoe_supports_bf16(void) {
    return landmoe_supports_fp32() && __builtin_cpu_supports("avx512bf16");
}

EXPORTED int landmoe_supports_amx(void) {
    unsigned a, b, c, d = 0;
    if (!landmoe_supports_bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if (!(d & AMX_BF16) || !(d & AMX_TILE)) return 0;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, XTILEDATA) == 0;
}
