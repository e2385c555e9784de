/* Model-specific registers and CR8 (Intel SDM vol. 4; vol. 3, 11.8.6 for CR8).
 *
 * What is part of the engine's own state (system calls, EFER, PAT, segment bases) the engine reads and writes itself.
 * IA32_APIC_BASE and CR8 belong to the board. The TSC and the MTRRs are kept here; MTRRs are plain storage. So is
 * MSR_KVM_STEAL_TIME, by which a guest says where the machine is to write stolen time (steal_time.py). Every
 * other register reads 0 and ignores writes, because kernels touch some of their CPU model's without asking for them,
 * but for those whose absence the manual defines as #GP(0): the x2APIC's and IA32_TSC_DEADLINE, which CPUID hides. */
#include "msr.h"

#include <dlfcn.h>
#include <string.h>

#include "hooks.h"
#include "relocate.h"

#define IA32_TSC 0x10u
#define IA32_APIC_BASE 0x1bu
#define IA32_TSC_ADJUST 0x3bu
#define IA32_BIOS_SIGN_ID 0x8bu
#define IA32_MTRRCAP 0xfeu
#define IA32_SYSENTER_CS 0x174u
#define IA32_SYSENTER_ESP 0x175u
#define IA32_SYSENTER_EIP 0x176u
#define IA32_PERF_STATUS 0x198u
#define IA32_MISC_ENABLE 0x1a0u
#define IA32_MTRR_PHYSBASE0 0x200u
#define IA32_MTRR_FIX64K_00000 0x250u
#define IA32_MTRR_FIX16K_80000 0x258u
#define IA32_MTRR_FIX16K_A0000 0x259u
#define IA32_MTRR_FIX4K_C0000 0x268u
#define IA32_MTRR_FIX4K_F8000 0x26fu
#define IA32_PAT 0x277u
#define IA32_MTRR_DEF_TYPE 0x2ffu
#define IA32_TSC_DEADLINE 0x6e0u
#define IA32_X2APIC_FIRST 0x800u
#define IA32_X2APIC_LAST 0x8ffu
#define MSR_KVM_STEAL_TIME 0x4b564d03u
#define IA32_EFER 0xc0000080u
#define IA32_STAR 0xc0000081u
#define IA32_LSTAR 0xc0000082u
#define IA32_CSTAR 0xc0000083u
#define IA32_FMASK 0xc0000084u
#define IA32_FS_BASE 0xc0000100u
#define IA32_GS_BASE 0xc0000101u
#define IA32_KERNEL_GS_BASE 0xc0000102u
#define IA32_TSC_AUX 0xc0000103u

#define MTRRCAP_FIX (1u << 8)
#define MTRRCAP_WC (1u << 10)

/* Charged for a change of protected mode or paging: 3 us. The TLB is empty behind it, and a boot loader that waits at
 * its menu by polling the BIOS does little else: without it a second of its time would take ten. */
#define MODE_SWITCH_WORK 3000

#define STEAL_TIME_RESERVED 0x3eu /* between the enable bit and the address, a multiple of 64 */

#define CR8 8
#define CR8_TPR 15u

static struct {
    void (*rdmsr)(cpu_env *env);
    void (*wrmsr)(cpu_env *env);
    uint64_t (*read_cr)(cpu_env *env, int number);
    void (*write_cr)(cpu_env *env, int number, uint64_t value);
} engine;

static struct {
    bool rdmsr, wrmsr, read_cr, write_cr;
} asked;

bool msr_all_asked(void) { return asked.rdmsr && asked.wrmsr && asked.read_cr && asked.write_cr; }

void msr_forget_asked(void) { memset(&asked, 0, sizeof asked); }

/* Where the MTRR `index` is kept; NULL when it is none. */
static uint64_t *mtrr(cpu_env *env, uint32_t index)
{
    if (index - IA32_MTRR_PHYSBASE0 < 2 * MTRR_VARIABLE)
        return &env->mtrr_variable[(index - IA32_MTRR_PHYSBASE0) / 2][index % 2];
    if (index >= IA32_MTRR_FIX4K_C0000 && index <= IA32_MTRR_FIX4K_F8000)
        return &env->mtrr_fixed[3 + index - IA32_MTRR_FIX4K_C0000];
    switch (index) {
    case IA32_MTRR_FIX64K_00000: return &env->mtrr_fixed[0];
    case IA32_MTRR_FIX16K_80000: return &env->mtrr_fixed[1];
    case IA32_MTRR_FIX16K_A0000: return &env->mtrr_fixed[2];
    case IA32_MTRR_DEF_TYPE: return &env->mtrr_def_type;
    default: return NULL;
    }
}

static bool is_engines(uint32_t index)
{
    switch (index) {
    case IA32_SYSENTER_CS:
    case IA32_SYSENTER_ESP:
    case IA32_SYSENTER_EIP:
    case IA32_MISC_ENABLE:
    case IA32_PAT:
    case IA32_EFER:
    case IA32_STAR:
    case IA32_LSTAR:
    case IA32_CSTAR:
    case IA32_FMASK:
    case IA32_FS_BASE:
    case IA32_GS_BASE:
    case IA32_KERNEL_GS_BASE:
    case IA32_TSC_AUX: return true;
    default: return false;
    }
}

static bool is_refused(uint32_t index)
{
    return index == IA32_TSC_DEADLINE || (index >= IA32_X2APIC_FIRST && index <= IA32_X2APIC_LAST);
}

/* Does it hold a linear address, which must be canonical? */
static bool is_address(uint32_t index)
{
    switch (index) {
    case IA32_SYSENTER_ESP:
    case IA32_SYSENTER_EIP:
    case IA32_LSTAR:
    case IA32_CSTAR:
    case IA32_FS_BASE:
    case IA32_GS_BASE:
    case IA32_KERNEL_GS_BASE: return true;
    default: return false;
    }
}

static bool is_canonical(uint64_t address) { return (uint64_t)((int64_t)(address << 16) >> 16) == address; }

/* Read a register that is not the engine's. False: #GP(0). */
static bool read_own(pcpu *p, uint32_t index, uint64_t *value)
{
    vcpu *v = p->vcpu;
    bool exists = true;
    const uint64_t *const kept = mtrr(p->env, index);
    *value = 0;
    if (kept) {
        *value = *kept;
        return true;
    }
    switch (index) {
    case IA32_TSC:
        v->work += RDTSC_WORK;
        *value = vcpu_tsc(v);
        return true;
    case IA32_TSC_ADJUST: *value = p->env->tsc_adjust; return true;
    case MSR_KVM_STEAL_TIME: *value = p->env->steal_time; return true;
    case IA32_MTRRCAP: *value = MTRR_VARIABLE | MTRRCAP_FIX | MTRRCAP_WC; return true;
    case IA32_APIC_BASE:
        handler_done(p, v->callbacks->msr_read(v, index, value, &exists));
        return exists;
    default: return !is_refused(index);
    }
}

/* Write a register that is not the engine's. False: #GP(0). */
static bool write_own(pcpu *p, uint32_t index, uint64_t value)
{
    vcpu *v = p->vcpu;
    bool accepted = true;
    uint64_t *const kept = mtrr(p->env, index);
    if (kept) {
        *kept = value;
        return true;
    }
    switch (index) {
    case IA32_TSC: p->env->tsc_adjust += value - vcpu_tsc(v); return true; /* so both move as one (vol. 3, 18.17.3) */
    case IA32_TSC_ADJUST: p->env->tsc_adjust = value; return true;
    case MSR_KVM_STEAL_TIME:
        if (value & STEAL_TIME_RESERVED)
            return false;
        p->env->steal_time = value;
        return true;
    case IA32_MTRRCAP: return false;
    case IA32_APIC_BASE:
        handler_done(p, v->callbacks->msr_write(v, index, value, &accepted));
        return accepted;
    default: return !is_refused(index);
    }
}

static void rdmsr(cpu_env *env)
{
    pcpu *p = pcpu_of(env);
    const uint32_t index = (uint32_t)env->regs[R_CX];
    uint64_t value;
    asked.rdmsr = true;
    if (!p || is_engines(index) || index == IA32_BIOS_SIGN_ID || index == IA32_PERF_STATUS) {
        engine.rdmsr(env);
        return;
    }
    if (!read_own(p, index, &value))
        unicorn.raise_exception_err(env, VECTOR_GP, 0);
    env->regs[R_AX] = (uint32_t)value;
    env->regs[R_DX] = value >> 32;
}

static void wrmsr(cpu_env *env)
{
    pcpu *p = pcpu_of(env);
    const uint32_t index = (uint32_t)env->regs[R_CX];
    const uint64_t value = (uint64_t)(uint32_t)env->regs[R_DX] << 32 | (uint32_t)env->regs[R_AX];
    asked.wrmsr = true;
    if (p && is_address(index) && !is_canonical(value))
        unicorn.raise_exception_err(env, VECTOR_GP, 0);
    if (!p || is_engines(index))
        engine.wrmsr(env);
    else if (!write_own(p, index, value))
        unicorn.raise_exception_err(env, VECTOR_GP, 0);
}

static uint64_t read_cr(cpu_env *env, int number)
{
    pcpu *p = pcpu_of(env);
    uint64_t value = 0;
    asked.read_cr = true;
    if (!p || number != CR8)
        return engine.read_cr(env, number);
    p->vcpu->work += RDTSC_WORK;
    handler_done(p, p->vcpu->callbacks->read_cr8(p->vcpu, &value));
    return value & CR8_TPR;
}

static void write_cr(cpu_env *env, int number, uint64_t value)
{
    pcpu *p = pcpu_of(env);
    asked.write_cr = true;
    if (!p || number != CR8) {
        if (p && number == 0 && ((env->cr[0] ^ value) & (CR0_PE | CR0_PG)))
            p->vcpu->work += MODE_SWITCH_WORK;
        engine.write_cr(env, number, value);
        return;
    }
    if (value & ~(uint64_t)CR8_TPR)
        unicorn.raise_exception_err(env, VECTOR_GP, 0);
    p->vcpu->work += RDTSC_WORK;
    handler_done(p, p->vcpu->callbacks->write_cr8(p->vcpu, value));
}

const char *msr_install(void *library)
{
    const struct {
        const char *name;
        void *original;
        void *replacement;
    } functions[] = {
        {"helper_rdmsr_x86_64", &engine.rdmsr, (void *)rdmsr},
        {"helper_wrmsr_x86_64", &engine.wrmsr, (void *)wrmsr},
        {"helper_read_crN_x86_64", &engine.read_cr, (void *)read_cr},
        {"helper_write_crN_x86_64", &engine.write_cr, (void *)write_cr},
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *address = dlsym(library, functions[i].name);
        if (!address)
            return functions[i].name;
        memcpy(functions[i].original, &address, sizeof address);
    }
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (relocate(library, functions[i].name, functions[i].replacement) <= 0)
            return functions[i].name;
    return NULL;
}
