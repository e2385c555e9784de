/* The part of Unicorn's C API that the core uses, found in the installed wheel at run time, and the few of
 * its internal functions that there is no public way around. */
#ifndef EMUVISOR_UNICORN_H
#define EMUVISOR_UNICORN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "env.h"

typedef struct uc_struct uc_engine;
typedef struct uc_context uc_context;
typedef size_t uc_hook;

enum { UC_ARCH_X86 = 4, UC_MODE_64 = 8 };
enum { UC_ERR_OK = 0, UC_ERR_EXCEPTION = 21 };
enum { UC_PROT_READ = 1, UC_PROT_WRITE = 2, UC_PROT_EXEC = 4, UC_PROT_ALL = 7 };
enum { UC_MEM_READ = 16, UC_MEM_WRITE = 17, UC_MEM_FETCH = 18 };
enum {
    UC_HOOK_INTR = 1 << 0,
    UC_HOOK_INSN = 1 << 1,
    UC_HOOK_CODE = 1 << 2,
    UC_HOOK_BLOCK = 1 << 3,
    UC_HOOK_MEM_READ = 1 << 10,
    UC_HOOK_MEM_WRITE = 1 << 11,
    UC_HOOK_INSN_INVALID = 1 << 14,
    UC_HOOK_TLB_FILL = 1 << 17
};
enum {
    UC_X86_INS_CPUID = 113,
    UC_X86_INS_IN = 218,
    UC_X86_INS_OUT = 500,
    UC_X86_INS_RDTSC = 608,
    UC_X86_INS_RDTSCP = 609,
    UC_X86_INS_SYSCALL = 699,
    UC_X86_INS_SYSENTER = 700
};
enum {
    UC_X86_REG_EFLAGS = 25,
    UC_X86_REG_RIP = 41,
    UC_X86_REG_CR0 = 50,
    UC_X86_REG_DR0 = 66,
    UC_X86_REG_FP0 = 82,
    UC_X86_REG_XMM0 = 122,
    UC_X86_REG_FPCW = 246,
    UC_X86_REG_MSR = 248,
    UC_X86_REG_MXCSR = 249,
    UC_X86_REG_FIP = 254,
    UC_X86_REG_FCS = 255,
    UC_X86_REG_FDP = 256,
    UC_X86_REG_FDS = 257,
    UC_X86_REG_FOP = 258
};

typedef struct {
    uint64_t paddr;
    int perms;
} uc_tlb_entry;

typedef struct {
    uint32_t rid;
    uint64_t value;
} uc_x86_msr;

#define UC_CTL_WRITE(type, nr) ((type) + ((unsigned)(nr) << 26) + (1u << 30))
#define UC_CTL_UC_USE_EXITS UC_CTL_WRITE(4, 1)
#define UC_CTL_CPU_MODEL UC_CTL_WRITE(7, 1)
#define UC_CTL_TB_REMOVE_CACHE UC_CTL_WRITE(9, 2)
#define UC_CTL_TB_FLUSH UC_CTL_WRITE(10, 0)
#define UC_CTL_TLB_FLUSH UC_CTL_WRITE(11, 0)
#define UC_CTL_TLB_TYPE UC_CTL_WRITE(12, 1)
#define UC_CTL_TCG_BUFFER_SIZE UC_CTL_WRITE(13, 1)
enum { UC_TLB_VIRTUAL = 1 };

typedef uint64_t (*uc_mmio_read)(uc_engine *, uint64_t offset, unsigned size, void *data);
typedef void (*uc_mmio_write)(uc_engine *, uint64_t offset, unsigned size, uint64_t value, void *data);

typedef struct {
    unsigned (*version)(unsigned *major, unsigned *minor);
    const char *(*strerror)(int error);
    int (*open)(int arch, int mode, uc_engine **engine);
    int (*close)(uc_engine *engine);
    int (*ctl)(uc_engine *engine, unsigned control, ...);
    int (*hook_add)(uc_engine *, uc_hook *, int type, void *callback, void *data, uint64_t begin,
                    uint64_t end, ...);
    int (*hook_del)(uc_engine *, uc_hook);
    int (*mem_map_ptr)(uc_engine *, uint64_t address, size_t size, uint32_t perms, void *memory);
    int (*mmio_map)(uc_engine *, uint64_t address, size_t size, uc_mmio_read, void *read_data,
                    uc_mmio_write, void *write_data);
    int (*emu_start)(uc_engine *, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
    int (*emu_stop)(uc_engine *);
    int (*reg_read)(uc_engine *, int reg, void *value);
    int (*reg_write)(uc_engine *, int reg, const void *value);

    /* Internal, by their exported names. */
    void (*raise_exception_err)(cpu_env *, int vector, int error_code); /* leaves the block by longjmp */
    void (*update_dr7)(cpu_env *, uint32_t dr7);                        /* hardware breakpoints in and out */
    void (*loop_exit_noexc)(void *cpu);                                 /* leaves the block by longjmp */

    bool (*fill_tlb)(void *cpu, uint64_t address, int size, int access, int mmu_mode, bool probe,
                     uintptr_t retaddr); /* calls the TLB hook; leaves the block when that refuses */
    void (*tlb_flush_page)(void *cpu, uint64_t address); /* of all MMU modes, with the jump cache */
    void (*tlb_set_page)(void *cpu, uint64_t address, uint64_t paddr, int perms, int mmu_mode, uint64_t size);

    size_t invalid_address_offset; /* in uc_engine: the full address of the last refused access */
    bool short_code; /* the replacements of unicorn_load are in place */
} unicorn_api;

extern unicorn_api unicorn;

typedef bool unicorn_fill(void *cpu, uint64_t address, int size, int access, int mmu_mode, bool probe,
                          uintptr_t retaddr);

/* Load libunicorn from `path`, resolve the API, and verify the state layout on a probe engine. With `short_code`,
 * replace what the core does better: exit checks after loads and stores, and unicorn_fill_tlb by `fill`. Returns NULL, or a message in
 * a static buffer. Call once, under the GIL. */
const char *unicorn_load(const char *path, bool short_code, unicorn_fill *fill);

/* Unicorn's names for an access and for who makes it, as fill_tlb gets them */
enum { UNICORN_ACCESS_LOAD, UNICORN_ACCESS_STORE, UNICORN_ACCESS_FETCH };
enum { UNICORN_MMU_SUPERVISOR_SMAP, UNICORN_MMU_USER, UNICORN_MMU_SUPERVISOR };

/* The live CPUX86State inside `engine`; NULL when it cannot be found. */
cpu_env *unicorn_find_env(uc_engine *engine);

/* A state as a new engine has it: the ground on which vCPU states are written. */
extern cpu_env unicorn_pristine;

/* Defined by the core (run.c). The engine leaves a block in its middle without an exception, to enter its rest anew
 * as another block: a store has changed the block's own code, or met a data breakpoint. The registers are those
 * before the store's instruction. */
void unicorn_block_left(void);

/* A host breakpoint or other wish to leave at this very instruction. */
#define VECTOR_LEAVE 0x1f2

#endif
