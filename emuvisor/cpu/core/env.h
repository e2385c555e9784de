/* The vCPU state as Unicorn 2.1 keeps it: the part of its CPUX86State that uc_context_save copies.
 *
 * layout.c finds every field by sentinels at start and refuses any other layout. */
#ifndef EMUVISOR_ENV_H
#define EMUVISOR_ENV_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t selector;
    uint32_t pad;
    uint64_t base;
    uint32_t limit;
    uint32_t flags; /* the descriptor's high doubleword; bits 8..23 are the attributes */
} env_segment;

enum { R_AX, R_CX, R_DX, R_BX, R_SP, R_BP, R_SI, R_DI, R_R11 = 11 };
enum { MTRR_FIXED = 11, MTRR_VARIABLE = 8 };
enum { S_ES, S_CS, S_SS, S_DS, S_FS, S_GS };

typedef struct {
    uint64_t regs[16]; /* in encoding order, enum R_* */
    uint64_t rip;
    uint64_t eflags; /* without the arithmetic flags and DF: read and write through env_rflags* */
    uint64_t cc_dst;
    uint64_t cc_src;
    uint64_t cc_src2;
    uint32_t cc_op;
    int32_t df;
    uint32_t hflags;
    uint32_t hflags2;
    env_segment segs[6]; /* enum S_* */
    env_segment ldt;
    env_segment tr;
    env_segment gdt;
    env_segment idt;
    uint64_t cr[9];
    int32_t a20_mask;
    uint8_t unused1[92];
    uint64_t efer;
    uint32_t start_init_save;
    uint32_t fpstt;
    uint16_t fpus;
    uint16_t fpuc;
    uint8_t fptags[8]; /* 0 valid, 1 empty */
    uint8_t unused2[4];
    struct {
        uint64_t mantissa;
        uint16_t exponent;
        uint8_t pad[6];
    } fpregs[8];
    uint16_t fpop; /* of the last x87 instruction: opcode, selectors and addresses of it and its operand */
    uint16_t fpcs;
    uint16_t fpds;
    uint64_t fpip;
    uint64_t fpdp;
    uint8_t unused3[40];
    uint32_t mxcsr;
    uint8_t unused4[4];
    uint8_t xmm[32][64]; /* the first 16 bytes of the first 16 are the XMM registers */
    uint8_t unused5[1928];
    uint32_t sysenter_cs;
    uint32_t unused6;
    uint64_t sysenter_esp;
    uint64_t sysenter_eip;
    uint64_t star;
    uint64_t vm_hsave;
    uint64_t lstar;
    uint64_t cstar;
    uint64_t fmask;
    uint64_t kernel_gs_base;
    uint64_t unused7;
    uint64_t tsc_adjust; /* the engine never touches it: kept by msr.c */
    uint64_t unused8;
    uint64_t tsc_aux;
    uint64_t xcr0;
    uint64_t mcg_status;
    uint64_t misc_enable;
    /* Here the engine has performance counters, which it never touches. It keeps MTRRs outside of this state, so
     * that guests would see each other's: msr.c has them here instead. */
    uint64_t mtrr_fixed[MTRR_FIXED];
    uint64_t mtrr_def_type;
    uint64_t mtrr_variable[MTRR_VARIABLE][2]; /* base, mask */
    uint8_t unused9[128];
    uint64_t pat;
    uint8_t unused10[40];
    uint64_t steal_time; /* MSR_KVM_STEAL_TIME; the engine never touches it: kept by msr.c */
    uint8_t unused11[48];
    int32_t error_code;         /* of the exception that ended emulation */
    int32_t exception_is_int;   /* it was an INT n */
    uint64_t exception_next_rip;
    uint64_t dr[8];
    void *breakpoints[4]; /* host pointers: never saved, never restored from outside */
    int32_t old_exception;
    uint8_t unused12[68];
} cpu_env;

static_assert(offsetof(cpu_env, rip) == 128, "layout");
static_assert(offsetof(cpu_env, hflags) == 176, "layout");
static_assert(offsetof(cpu_env, segs) == 184, "layout");
static_assert(offsetof(cpu_env, ldt) == 328, "layout");
static_assert(offsetof(cpu_env, cr) == 424, "layout");
static_assert(offsetof(cpu_env, efer) == 592, "layout");
static_assert(offsetof(cpu_env, fpus) == 608, "layout");
static_assert(offsetof(cpu_env, fpop) == 752, "layout");
static_assert(offsetof(cpu_env, fpip) == 760, "layout");
static_assert(offsetof(cpu_env, fpdp) == 768, "layout");
static_assert(offsetof(cpu_env, mxcsr) == 816, "layout");
static_assert(offsetof(cpu_env, xmm) == 824, "layout");
static_assert(offsetof(cpu_env, sysenter_cs) == 4800, "layout");
static_assert(offsetof(cpu_env, kernel_gs_base) == 4864, "layout");
static_assert(offsetof(cpu_env, tsc_adjust) == 4880, "layout");
static_assert(offsetof(cpu_env, tsc_aux) == 4896, "layout");
static_assert(offsetof(cpu_env, misc_enable) == 4920, "layout");
static_assert(offsetof(cpu_env, mtrr_fixed) == 4928, "layout");
static_assert(offsetof(cpu_env, pat) == 5280, "layout");
static_assert(offsetof(cpu_env, steal_time) == 5328, "layout");
static_assert(offsetof(cpu_env, dr) == 5400, "layout");
static_assert(offsetof(cpu_env, old_exception) == 5496, "layout");
static_assert(sizeof(cpu_env) == 5568, "layout");

/* hflags: the parts of the state that translated code depends on */
#define HF_CPL 0x3u
#define HF_INHIBIT_IRQ (1u << 3)
#define HF_CS32 (1u << 4)
#define HF_SS32 (1u << 5)
#define HF_ADDSEG (1u << 6)
#define HF_PE (1u << 7)
#define HF_TF (1u << 8)
#define HF_MP (1u << 9)
#define HF_EM (1u << 10)
#define HF_TS (1u << 11)
#define HF_IOPL (3u << 12)
#define HF_LMA (1u << 14)
#define HF_CS64 (1u << 15)
#define HF_RF (1u << 16)
#define HF_VM (1u << 17)
#define HF_AC (1u << 18)
#define HF_OSFXSR (1u << 22)
#define HF_SMAP (1u << 23)

/* hflags2: hidden state that it does not depend on */
#define HF2_NMI (1u << 2) /* NMIs are blocked; the engine clears it on IRET */

/* RFLAGS */
#define FL_ARITHMETIC 0x8d5u
#define FL_TF (1u << 8)
#define FL_IF (1u << 9)
#define FL_DF (1u << 10)
#define FL_IOPL (3u << 12)
#define FL_NT (1u << 14)
#define FL_RF (1u << 16)
#define FL_VM (1u << 17)
#define FL_AC (1u << 18)
#define FL_VIF (1u << 19)
#define FL_VIP (1u << 20)

/* control registers and EFER */
#define CR0_PE (1u << 0)
#define CR0_MP (1u << 1)
#define CR0_EM (1u << 2)
#define CR0_TS (1u << 3)
#define CR0_WP (1u << 16)
#define CR0_PG (1u << 31)
#define CR4_VME (1u << 0)
#define CR4_PVI (1u << 1)
#define CR4_PSE (1u << 4)
#define CR4_PAE (1u << 5)
#define CR4_OSFXSR (1u << 9)
#define CR4_SMEP (1u << 20)
#define CR4_SMAP (1u << 21)
#define EFER_SCE (1u << 0)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define EFER_NXE (1u << 11)

/* segment flags (descriptor high doubleword) */
#define DESC_TYPE (15u << 8)
#define DESC_A (1u << 8)
#define DESC_W (1u << 9)  /* data: writable */
#define DESC_R (1u << 9)  /* code: readable */
#define DESC_E (1u << 10) /* data: expand down */
#define DESC_C (1u << 10) /* code: conforming */
#define DESC_CS (1u << 11)
#define DESC_S (1u << 12)
#define DESC_DPL_SHIFT 13
#define DESC_P (1u << 15)
#define DESC_L (1u << 21)
#define DESC_B (1u << 22)
#define DESC_G (1u << 23)

static inline unsigned env_cpl(const cpu_env *env) { return env->hflags & HF_CPL; }

/* cc_op of the state where cc_src holds the arithmetic flags as they are */
#define CC_OP_EFLAGS 1

/* RFLAGS in the architecture's form; cc_op must be CC_OP_EFLAGS (engine.c normalises it). */
static inline uint64_t env_rflags(const cpu_env *env)
{
    return env->eflags | (env->cc_src & FL_ARITHMETIC) | (env->df < 0 ? FL_DF : 0) | 2;
}

/* Set RFLAGS. hflags also has places for TF, IOPL, RF, VM and AC, but Unicorn ORs them in from eflags at every
 * block and itself never clears them: they must stay 0 there. */
static inline void env_set_rflags(cpu_env *env, uint64_t flags)
{
    env->cc_op = CC_OP_EFLAGS;
    env->cc_src = flags & FL_ARITHMETIC;
    env->df = flags & FL_DF ? -1 : 1;
    env->eflags = (flags & ~(uint64_t)(FL_ARITHMETIC | FL_DF)) | 2;
    env->hflags &= ~(HF_TF | HF_IOPL | HF_RF | HF_VM | HF_AC);
}

#endif
