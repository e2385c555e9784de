/* Opening and closing engines, and moving vCPUs in and out of them. */
#define _GNU_SOURCE
#include "pcpu.h"

#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "debug.h"
#include "hooks.h"
#include "paging.h"

#define TRANSLATION_BUFFER (64u << 20)
#define DR7_ENABLED 0xffu

const char *const counter_names[COUNTERS] = {
    "port_read", "port_write",     "mmio_read", "mmio_write", "cpuid",    "rdtsc",     "halt",  "pause", "exception",
    "page_fault", "soft_interrupt", "interrupt", "syscall",    "tlb_fill", "tlb_flush", "stale", "switch",
};

static void set_current(pcpu *p, vcpu *v)
{
    pthread_mutex_lock(&p->frames->lock);
    p->vcpu = v;
    pthread_mutex_unlock(&p->frames->lock);
}

void vcpu_sync(vcpu *v)
{
    if (!v->loaded)
        return;
    normalise_flags(v->loaded);
    memcpy(&v->env, v->loaded->env, sizeof v->env);
    memset(v->env.breakpoints, 0, sizeof v->env.breakpoints);
}

void vcpu_unload(vcpu *v)
{
    pcpu *p = v->loaded;
    if (!p)
        return;
    vcpu_sync(v);
    if (p->env->dr[7] & DR7_ENABLED)
        unicorn.update_dr7(p->env, 0); /* takes the engine's breakpoints out */
    debug_remove(p);
    v->loaded = NULL;
    v->memory->loaded = NULL;
    set_current(p, NULL);
}

/* Do the vCPU that `p` holds and its sibling `v` see the same address space? Then what is in the TLB holds for both. */
static bool translate_alike(const pcpu *p, const vcpu *v)
{
    const cpu_env *old = p->env, *new = &v->env;
    return p->vcpu->memory == v->memory && p->epoch == v->memory->epoch && old->cr[0] == new->cr[0]
           && old->cr[3] == new->cr[3] && old->cr[4] == new->cr[4] && old->efer == new->efer
           && old->a20_mask == new->a20_mask && !((old->dr[7] | new->dr[7]) & DR7_ENABLED);
}

void pcpu_load(pcpu *p, vcpu *v)
{
    if (p->vcpu == v)
        return;
    const bool flush = !p->vcpu || !translate_alike(p, v);
    if (p->vcpu)
        vcpu_unload(p->vcpu);
    if (v->memory->loaded)
        vcpu_unload(v->memory->loaded);
    const uint64_t dr7 = v->env.dr[7];
    memcpy(p->env, &v->env, sizeof v->env);
    p->env->dr[7] = 0x400;
    p->env->old_exception = -1;
    if (dr7 & DR7_ENABLED)
        unicorn.update_dr7(p->env, (uint32_t)dr7);
    else
        p->env->dr[7] = dr7;
    if (v->fpu_changed) {
        const uint16_t control = v->env.fpuc;
        const uint32_t mxcsr = v->env.mxcsr;
        unicorn.reg_write(p->engine, UC_X86_REG_FPCW, &control);
        unicorn.reg_write(p->engine, UC_X86_REG_MXCSR, &mxcsr);
        v->fpu_changed = false;
    }
    v->loaded = p;
    v->memory->loaded = v;
    set_current(p, v);
    v->counters[COUNT_SWITCH]++;
    if (flush)
        flush_tlb(p);
    debug_install(p);
}

static uint64_t guest_time(const vcpu *v)
{
    struct timespec t;
    if (!v->host_clock)
        return v->work + v->idle_ns;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)((int64_t)t.tv_sec * 1000000000 + t.tv_nsec - v->tsc_origin);
}

uint64_t vcpu_tsc(const vcpu *v)
{
    return guest_time(v) + (v->loaded ? v->loaded->env : &v->env)->tsc_adjust;
}

static const char *open_engine(pcpu *p, frames *f, int cpu_model)
{
    const struct {
        int type;
        void *callback;
        int instruction;
    } hooks[] = {
        {UC_HOOK_BLOCK, (void *)on_block, 0},
        {UC_HOOK_INTR, (void *)on_interrupt, 0},
        {UC_HOOK_INSN_INVALID, (void *)on_invalid_instruction, 0},
        {UC_HOOK_TLB_FILL, (void *)on_tlb_fill, 0},
        {UC_HOOK_INSN, (void *)on_in, UC_X86_INS_IN},
        {UC_HOOK_INSN, (void *)on_out, UC_X86_INS_OUT},
        {UC_HOOK_INSN, (void *)on_syscall, UC_X86_INS_SYSCALL},
        {UC_HOOK_INSN, (void *)on_sysenter, UC_X86_INS_SYSENTER},
        {UC_HOOK_INSN, (void *)on_cpuid, UC_X86_INS_CPUID},
        {UC_HOOK_INSN, (void *)on_rdtsc, UC_X86_INS_RDTSC},
        {UC_HOOK_INSN, (void *)on_rdtscp, UC_X86_INS_RDTSCP},
    };
    uc_hook hook;
    int error = unicorn.open(UC_ARCH_X86, UC_MODE_64, &p->engine);
    if (error != UC_ERR_OK)
        return unicorn.strerror(error);
    p->frames = f;
    for (p->index = 0; p->index < FRAMES_ENGINES && f->engines[p->index]; p->index++)
        ;
    if (p->index == FRAMES_ENGINES) {
        unicorn.close(p->engine);
        return "a frame pool serves at most 32 pCPUs";
    }
    unicorn.ctl(p->engine, UC_CTL_TCG_BUFFER_SIZE, TRANSLATION_BUFFER);
    if (cpu_model >= 0)
        unicorn.ctl(p->engine, UC_CTL_CPU_MODEL, cpu_model);
    unicorn.ctl(p->engine, UC_CTL_UC_USE_EXITS, 1);
    unicorn.ctl(p->engine, UC_CTL_TLB_TYPE, UC_TLB_VIRTUAL);
    error = unicorn.mem_map_ptr(p->engine, 0, (size_t)f->count * PAGE_SIZE, UC_PROT_ALL, f->base);
    if (!error)
        error = unicorn.mmio_map(p->engine, MMIO_BASE, MMIO_SIZE, on_mmio_read, p, on_mmio_write, p);
    for (size_t i = 0; !error && i < sizeof hooks / sizeof hooks[0]; i++)
        error = unicorn.hook_add(p->engine, &hook, hooks[i].type, hooks[i].callback, p, 1, 0,
                                 hooks[i].instruction);
    p->env = error ? NULL : unicorn_find_env(p->engine);
    if (!p->env) {
        unicorn.close(p->engine);
        return error ? unicorn.strerror(error) : "the CPU state of this engine cannot be found";
    }
    p->stale.notify = on_stale;
    p->stale.engine = p;
    pthread_mutex_lock(&f->lock);
    f->engines[p->index] = &p->stale;
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

const char *pcpu_open(pcpu *p, frames *f, int cpu_model)
{
    /* One at a time: for the place among the engines, and for tables that all of Unicorn's engines have in common. */
    static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&opening);
    /* Unicorn wants its code in huge pages; one for the few bytes that it writes now can take longer than all else. */
    int without = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    const char *error = open_engine(p, f, cpu_model);
    if (without == 0)
        prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    pthread_mutex_unlock(&opening);
    return error;
}

void pcpu_close(pcpu *p)
{
    if (p->vcpu)
        vcpu_unload(p->vcpu);
    pthread_mutex_lock(&p->frames->lock);
    p->frames->engines[p->index] = NULL;
    pthread_mutex_unlock(&p->frames->lock);
    for (uint32_t i = 0; i < p->frames->count; i++)
        p->frames->fetched[i] &= ~(1u << p->index);
    unicorn.close(p->engine);
}
