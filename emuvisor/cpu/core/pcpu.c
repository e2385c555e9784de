/* Running a vCPU on an engine: loading, the run loop, preemption, and what Unicorn's hooks hand to us. */
#define _GNU_SOURCE
#include "pcpu.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "debug.h"
#include "paging.h"
#include "supervisor.h"

#define MMIO_BASE (1ull << 44) /* engine physical address of guest physical 0 as a device window */
#define MMIO_SIZE (1ull << 40)
#define TRANSLATION_BUFFER (64u << 20)
/* Work charged for delivering an event, so that a guest whose handlers fault for ever uses up its budget. */
#define EVENT_WORK 32
#define HF2_NMI (1u << 2) /* Unicorn clears it on IRET */
#define DR7_ENABLED 0xffu
#define VECTOR_NMI 2
#define VECTOR_UD 6
#define VECTOR_GP 13
#define VECTOR_PF 14

const char *const counter_names[COUNTERS] = {
    "port_read", "port_write",     "mmio_read", "mmio_write", "cpuid",    "rdtsc",     "halt",  "exception",
    "page_fault", "soft_interrupt", "interrupt", "syscall",    "tlb_fill", "tlb_flush", "stale", "switch",
};

static void flush_tlb(pcpu *p)
{
    unicorn.ctl(p->engine, UC_CTL_TLB_FLUSH);
    if (p->vcpu) {
        p->epoch = p->vcpu->memory->epoch;
        p->vcpu->counters[COUNT_TLB_FLUSH]++;
    }
}

/* ---- translations that have become wrong ---- */

static void drop_translations(pcpu *p, uint64_t start, uint64_t end)
{
    p->dropping = true; /* Unicorn translates `start` as a virtual address: on_tlb_fill answers identically */
    unicorn.ctl(p->engine, UC_CTL_TLB_FLUSH);
    unicorn.ctl(p->engine, UC_CTL_TB_REMOVE_CACHE, start, end);
    p->dropping = false;
    flush_tlb(p);
}

static void forget_frame(pcpu *p, uint32_t frame)
{
    if (!(__atomic_load_n(&p->frames->fetched[frame], __ATOMIC_ACQUIRE) >> p->index & 1))
        return;
    drop_translations(p, (uint64_t)frame * PAGE_SIZE, (uint64_t)(frame + 1) * PAGE_SIZE);
    __atomic_fetch_and(&p->frames->fetched[frame], ~(1u << p->index), __ATOMIC_ACQ_REL);
}

static void drop_stale(pcpu *p)
{
    frame_range ranges[STALE_RANGES];
    unsigned count;
    if (__atomic_load_n(&p->stale.count, __ATOMIC_ACQUIRE) == 0)
        return;
    pthread_mutex_lock(&p->frames->lock);
    count = p->stale.count;
    p->stale.count = 0;
    memcpy(ranges, p->stale.ranges, (count > STALE_RANGES ? 0 : count) * sizeof ranges[0]);
    pthread_mutex_unlock(&p->frames->lock);
    if (count > STALE_RANGES) {
        unicorn.ctl(p->engine, UC_CTL_TB_FLUSH);
        flush_tlb(p);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        if (ranges[i].end - ranges[i].start == PAGE_SIZE)
            forget_frame(p, (uint32_t)(ranges[i].start / PAGE_SIZE));
        else
            drop_translations(p, ranges[i].start, ranges[i].end);
    }
    if (p->vcpu)
        p->vcpu->counters[COUNT_STALE] += count;
}

/* Any thread, under the frames' lock. */
static void on_stale(void *engine)
{
    pcpu *p = engine;
    if (p->vcpu)
        vcpu_attention(p->vcpu);
}

static void set_current(pcpu *p, vcpu *v)
{
    pthread_mutex_lock(&p->frames->lock);
    p->vcpu = v;
    pthread_mutex_unlock(&p->frames->lock);
}

/* ---- state ---- */

static void normalise_flags(pcpu *p)
{
    uint32_t flags = 0;
    if (p->env->cc_op == CC_OP_EFLAGS)
        return;
    unicorn.reg_read(p->engine, UC_X86_REG_EFLAGS, &flags);
    env_set_rflags(p->env, flags);
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
    v->memory->engine = -1;
    set_current(p, NULL);
}

void pcpu_load(pcpu *p, vcpu *v)
{
    if (p->vcpu == v)
        return;
    if (p->vcpu)
        vcpu_unload(p->vcpu);
    if (v->loaded)
        vcpu_unload(v);
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
    v->memory->engine = (int)p->index;
    set_current(p, v);
    v->counters[COUNT_SWITCH]++;
    flush_tlb(p);
    debug_install(p);
}

uint64_t vcpu_tsc(const vcpu *v)
{
    struct timespec t;
    if (!v->host_clock)
        return v->work + v->idle_ns;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)((int64_t)t.tv_sec * 1000000000 + t.tv_nsec - v->tsc_origin);
}

/* The last counted block was left at RIP: what is behind RIP has not run and will be counted again. */
static void uncount(pcpu *p)
{
    const uint64_t rip = p->env->segs[S_CS].base + p->env->rip;
    if (rip >= p->block_start && rip < p->block_end)
        p->vcpu->work -= p->block_end - rip;
    p->block_start = p->block_end = 0;
}

/* ---- events ---- */

/* True: delivered. False: the guest is shut down, or delivery has to be repeated (v->has_event). */
static bool deliver(pcpu *p, const event *e)
{
    vcpu *v = p->vcpu;
    const uint64_t cr0 = p->env->cr[0], cr3 = p->env->cr[3];
    normalise_flags(p);
    v->work += EVENT_WORK;
    const enum deliver_result result = events_deliver(p->env, &v->memory->physical, e);
    if (v->memory->epoch != p->epoch || p->env->cr[0] != cr0 || p->env->cr[3] != cr3)
        flush_tlb(p);
    if (result == DELIVERED)
        return true;
    if (result == DELIVER_SHUTDOWN) {
        p->shutdown = true;
    } else {
        v->event = *e;
        v->has_event = true;
    }
    return false;
}

/* Inside a hook that Unicorn calls between blocks: deliver, or end emulation. */
static void deliver_or_stop(pcpu *p, const event *e)
{
    if (!deliver(p, e))
        unicorn.emu_stop(p->engine);
}

static bool has_error_code(uint32_t vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

static void on_interrupt(uc_engine *engine, uint32_t vector, void *data)
{
    pcpu *p = data;
    cpu_env *env = p->env;
    event e = {.vector = (uint8_t)vector, .kind = EVENT_EXCEPTION};
    (void)engine;
    uncount(p);
    if (vector == VECTOR_LEAVE) {
        if (p->has_forced) {
            p->has_forced = false;
            deliver_or_stop(p, &p->forced);
        } else {
            unicorn.emu_stop(p->engine);
        }
        return;
    }
    if (env->exception_is_int) {
        e.kind = EVENT_SOFTWARE;
        e.instruction = env->rip - (vector == 3 || vector == 4 ? 1 : 2); /* INT3 and INTO; INT n */
        p->vcpu->counters[COUNT_SOFT_INTERRUPT]++;
    } else {
        e.has_error_code = has_error_code(vector);
        e.error_code = (uint32_t)env->error_code;
        p->vcpu->counters[COUNT_EXCEPTION]++;
    }
    deliver_or_stop(p, &e);
}

static bool on_invalid_instruction(uc_engine *engine, void *data)
{
    pcpu *p = data;
    uint8_t opcode = 0;
    event e = {.vector = VECTOR_UD, .kind = EVENT_EXCEPTION};
    (void)engine;
    uncount(p);
    supervisor_read_code(p->env, &p->vcpu->memory->physical, &opcode, 1);
    if (opcode == 0xf1) { /* ICEBP, which this engine does not know */
        e = (event){.vector = 1, .kind = EVENT_ICEBP};
        p->env->rip++;
    }
    p->vcpu->counters[COUNT_EXCEPTION]++;
    deliver_or_stop(p, &e);
    return true;
}

/* Unicorn adds the instruction's length to RIP after these two return. */
static void on_syscall(uc_engine *engine, void *data)
{
    pcpu *p = data;
    (void)engine;
    normalise_flags(p);
    p->vcpu->counters[COUNT_SYSCALL]++;
    const enum deliver_result result = events_syscall(p->env, &p->vcpu->memory->physical, 2);
    p->shutdown |= result == DELIVER_SHUTDOWN;
    p->env->rip -= 2;
    if (result != DELIVERED)
        unicorn.emu_stop(p->engine);
}

static void on_sysenter(uc_engine *engine, void *data)
{
    pcpu *p = data;
    (void)engine;
    normalise_flags(p);
    p->vcpu->counters[COUNT_SYSCALL]++;
    const enum deliver_result result = events_sysenter(p->env, &p->vcpu->memory->physical);
    p->shutdown |= result == DELIVER_SHUTDOWN;
    p->env->rip -= 2;
    if (result != DELIVERED)
        unicorn.emu_stop(p->engine);
}

/* ---- the clock, identification, I/O ---- */

static void fail(pcpu *p)
{
    p->vcpu->failed = true;
    vcpu_attention(p->vcpu);
}

static int on_rdtsc(uc_engine *engine, void *data)
{
    pcpu *p = data;
    const uint64_t tsc = vcpu_tsc(p->vcpu);
    (void)engine;
    p->vcpu->counters[COUNT_RDTSC]++;
    p->env->regs[R_AX] = (uint32_t)tsc;
    p->env->regs[R_DX] = tsc >> 32;
    return 1;
}

static int on_rdtscp(uc_engine *engine, void *data)
{
    pcpu *p = data;
    p->env->regs[R_CX] = (uint32_t)p->env->tsc_aux;
    return on_rdtsc(engine, data);
}

static int on_cpuid(uc_engine *engine, void *data)
{
    pcpu *p = data;
    vcpu *v = p->vcpu;
    uint32_t out[4] = {0, 0, 0, 0};
    (void)engine;
    v->counters[COUNT_CPUID]++;
    if (!v->callbacks->cpuid(v, (uint32_t)p->env->regs[R_AX], (uint32_t)p->env->regs[R_CX], out))
        fail(p);
    p->env->regs[R_AX] = out[0];
    p->env->regs[R_BX] = out[1];
    p->env->regs[R_CX] = out[2];
    p->env->regs[R_DX] = out[3];
    return 1;
}

/* Before a handler runs, and after it. */
static void begin_access(vcpu *v, uint64_t address, unsigned size, bool write, bool mmio, uint64_t value)
{
    v->leave = false;
    v->access = (io_access){address, value, (uint8_t)size, write, mmio};
}

static void end_access(pcpu *p, bool ok, uint64_t value)
{
    vcpu *v = p->vcpu;
    v->access.value = value;
    if (!ok)
        fail(p);
    if (v->leave)
        vcpu_attention(v);
    if (v->memory->epoch != p->epoch)
        flush_tlb(p);
}

/* A port access that the I/O permission bitmap refuses does not return from here. */
static void check_port(pcpu *p, uint16_t port, unsigned size)
{
    cpu_env *env = p->env;
    bool allowed = true;
    event fault;
    uint64_t address = 0;
    if (!(env->hflags & HF_PE)
        || (env_cpl(env) <= (env->eflags >> 12 & 3) && !(env->eflags & FL_VM)))
        return;
    const enum deliver_result result =
        events_port_allowed(env, &p->vcpu->memory->physical, port, size, &allowed, &fault, &address);
    if (result == DELIVERED && allowed)
        return;
    if (result == DELIVERED) {
        p->has_forced = true;
        p->forced = fault;
        if (fault.vector == VECTOR_PF)
            env->cr[2] = address;
        p->vcpu->counters[COUNT_EXCEPTION]++;
    }
    unicorn.raise_exception_err(env, VECTOR_LEAVE, 0);
}

static uint32_t on_in(uc_engine *engine, uint32_t port, int size, void *data)
{
    pcpu *p = data;
    uint32_t value = 0;
    (void)engine;
    check_port(p, (uint16_t)port, (unsigned)size);
    p->vcpu->counters[COUNT_PORT_READ]++;
    begin_access(p->vcpu, port & 0xffff, (unsigned)size, false, false, 0);
    const bool ok = p->vcpu->callbacks->port_read(p->vcpu, (uint16_t)port, (unsigned)size, &value);
    end_access(p, ok, value);
    return value;
}

static void on_out(uc_engine *engine, uint32_t port, int size, uint32_t value, void *data)
{
    pcpu *p = data;
    (void)engine;
    check_port(p, (uint16_t)port, (unsigned)size);
    p->vcpu->counters[COUNT_PORT_WRITE]++;
    begin_access(p->vcpu, port & 0xffff, (unsigned)size, true, false, value);
    end_access(p, p->vcpu->callbacks->port_write(p->vcpu, (uint16_t)port, (unsigned)size, value), value);
}

static uint64_t on_mmio_read(uc_engine *engine, uint64_t gpa, unsigned size, void *data)
{
    pcpu *p = data;
    uint64_t value = 0;
    (void)engine;
    p->vcpu->counters[COUNT_MMIO_READ]++;
    begin_access(p->vcpu, gpa, size, false, true, 0);
    const bool ok = p->vcpu->callbacks->mmio_read(p->vcpu, gpa, size, &value);
    end_access(p, ok, value);
    return value;
}

static void on_mmio_write(uc_engine *engine, uint64_t gpa, unsigned size, uint64_t value, void *data)
{
    pcpu *p = data;
    uint32_t frame;
    (void)engine;
    if (stage2_translate(p->vcpu->memory, gpa / PAGE_SIZE, false, &frame) == STAGE2_DISCARD)
        return; /* ROM */
    p->vcpu->counters[COUNT_MMIO_WRITE]++;
    begin_access(p->vcpu, gpa, size, true, true, value);
    end_access(p, p->vcpu->callbacks->mmio_write(p->vcpu, gpa, size, value), value);
}

/* ---- translation ---- */

static bool refuse(pcpu *p, uint64_t page, bool fetch, bool host, uint32_t error_code)
{
    p->refused.valid = true;
    p->refused.host = host;
    p->refused.fetch = fetch;
    p->refused.page = page;
    p->refused.error_code = error_code;
    return false;
}

static bool on_tlb_fill(uc_engine *engine, uint64_t address, int type, uc_tlb_entry *entry, void *data)
{
    pcpu *p = data;
    vcpu *v = p->vcpu;
    cpu_env *env = p->env;
    const bool fetch = type == UC_MEM_FETCH, write = type == UC_MEM_WRITE;
    unsigned access = fetch ? ACCESS_FETCH : write ? ACCESS_WRITE : ACCESS_READ;
    uint32_t frame;
    walk w;
    (void)engine;

    if (p->dropping) {
        entry->paddr = address;
        entry->perms = UC_PROT_ALL;
        return true;
    }
    v->counters[COUNT_TLB_FILL]++;
    if (env_cpl(env) == 3)
        access |= ACCESS_USER;
    enum walk_result result = paging_walk(env, &v->memory->physical, address, access, &w);
    if (result == WALK_FAULT && access & ACCESS_USER && !fetch
        && supervisor_access(env, &v->memory->physical, address)) {
        access = (access & ~(unsigned)ACCESS_USER) | ACCESS_IMPLICIT;
        result = paging_walk(env, &v->memory->physical, address, access, &w);
    }
    if (result != WALK_OK)
        return refuse(p, address, fetch, result == WALK_HOST, w.error_code);

    const uint64_t faults = v->memory->faults;
    const enum stage2_result found = stage2_translate(v->memory, w.gpa / PAGE_SIZE, write, &frame);
    if (v->memory->epoch != p->epoch)
        flush_tlb(p);
    if (v->memory->faults != faults && found == STAGE2_READWRITE)
        forget_frame(p, frame); /* a moment ago it may have been another guest's code */
    switch (found) {
    case STAGE2_HOST: return refuse(p, address, fetch, true, 0);
    case STAGE2_NOTHING:
        if (fetch) {
            entry->paddr = (uint64_t)FRAME_ONES * PAGE_SIZE;
            entry->perms = UC_PROT_EXEC;
        } else {
            entry->paddr = MMIO_BASE + (w.gpa & PAGE_MASK);
            entry->perms = UC_PROT_READ | (w.writable ? UC_PROT_WRITE : 0);
        }
        return true;
    case STAGE2_DISCARD:
        if (write) {
            entry->paddr = MMIO_BASE + (w.gpa & PAGE_MASK);
            entry->perms = UC_PROT_WRITE;
            return true;
        }
        break;
    default: break;
    }

    const uint32_t mine = 1u << p->index;
    const uint32_t fetched = __atomic_load_n(&p->frames->fetched[frame], __ATOMIC_ACQUIRE);
    bool writable = found == STAGE2_READWRITE && w.writable;
    bool executable = (fetched & mine) && w.executable;
    if (fetch && !(fetched & mine)) {
        /* From now on stores to this frame must be seen: no writable translation without EXEC may stay. */
        __atomic_fetch_or(&p->frames->fetched[frame], mine, __ATOMIC_ACQ_REL);
        flush_tlb(p);
    }
    if (!fetch && writable && (fetched & mine) && !executable) {
        /* Data through a mapping that is not executable: code went away, or is being written by an alias. */
        if (write)
            forget_frame(p, frame);
        else
            writable = false;
    }
    if (writable && fetched & ~mine)
        frames_changed(p->frames, frame, 0, PAGE_SIZE, (int)p->index);
    entry->paddr = (uint64_t)frame * PAGE_SIZE;
    entry->perms = UC_PROT_READ | (writable ? UC_PROT_WRITE : 0) | (executable || fetch ? UC_PROT_EXEC : 0);
    return true;
}

/* ---- counting and preemption ---- */

static bool interruptible(const cpu_env *env)
{
    return (env->eflags & FL_IF) && !(env->hflags & HF_INHIBIT_IRQ);
}

static bool nmi_deliverable(const pcpu *p)
{
    return p->vcpu->nmi && !(p->env->hflags2 & HF2_NMI) && !(p->env->hflags & HF_INHIBIT_IRQ);
}

static void set_limit(pcpu *p)
{
    vcpu *v = p->vcpu;
    const bool look = v->interrupt || v->nmi || v->trace;
    __atomic_store_n(&v->limit, look ? 0 : v->budget_end, __ATOMIC_RELEASE);
    if (__atomic_load_n(&v->stop, __ATOMIC_ACQUIRE) || __atomic_load_n(&p->stale.count, __ATOMIC_ACQUIRE))
        vcpu_attention(v);
}

static __attribute__((noinline)) void look(pcpu *p, vcpu *v)
{
    if (__atomic_load_n(&v->stop, __ATOMIC_ACQUIRE) || v->failed || v->leave || p->debug
        || v->work >= v->budget_end || __atomic_load_n(&p->stale.count, __ATOMIC_ACQUIRE)
        || (v->interrupt && interruptible(p->env)) || nmi_deliverable(p)) {
        p->stopping = true;
        p->block_start = p->block_end = 0;
        if (unicorn.short_code)
            unicorn.raise_exception_err(p->env, VECTOR_LEAVE, 0); /* to on_interrupt, by longjmp */
        unicorn.emu_stop(p->engine); /* before the block runs: it is not counted */
        return;
    }
    v->work += p->block_end - p->block_start;
    if (v->trace)
        v->trace[v->trace_count++ % v->trace_size] = p->block_start;
    set_limit(p);
}

static void on_block(uc_engine *engine, uint64_t address, uint32_t size, void *data)
{
    pcpu *p = data;
    vcpu *v = p->vcpu;
    (void)engine;
    p->block_start = address;
    p->block_end = address + size;
    if (__builtin_expect(v->work < __atomic_load_n(&v->limit, __ATOMIC_RELAXED), 1))
        v->work += size;
    else
        look(p, v);
}

/* ---- the run loop ---- */

/* Deliver what waits. True: something was delivered or ended; look again. */
static bool deliver_pending(pcpu *p, bool *ok)
{
    vcpu *v = p->vcpu;
    event e;
    *ok = true;
    if (v->has_event) {
        e = v->event;
        v->has_event = false;
        *ok = deliver(p, &e);
        return true;
    }
    if (nmi_deliverable(p)) {
        v->nmi = false;
        v->halted = false;
        p->env->hflags2 |= HF2_NMI;
        e = (event){.vector = VECTOR_NMI, .kind = EVENT_INTERRUPT};
        v->counters[COUNT_INTERRUPT]++;
        *ok = deliver(p, &e);
        return true;
    }
    if (v->interrupt && interruptible(p->env)) {
        int vector = -1;
        if (!v->callbacks->acknowledge(v, &vector)) {
            v->failed = true;
            *ok = false;
            return true;
        }
        if (vector < 0)
            return false;
        v->halted = false;
        e = (event){.vector = (uint8_t)vector, .kind = EVENT_INTERRUPT};
        v->counters[COUNT_INTERRUPT]++;
        *ok = deliver(p, &e);
        return true;
    }
    return false;
}

static enum exit_reason engine_error(vcpu *v, int error)
{
    snprintf(v->error, sizeof v->error, "the engine ended with %s", unicorn.strerror(error));
    return EXIT_ERROR;
}

/* A translation was refused: page fault, general protection for a non-canonical address, or no frame. */
static bool handle_refusal(pcpu *p, enum exit_reason *reason)
{
    vcpu *v = p->vcpu;
    const uint64_t address = *(const uint64_t *)((const char *)p->engine + unicorn.invalid_address_offset);
    event e = {.vector = VECTOR_PF, .kind = EVENT_EXCEPTION, .has_error_code = true,
               .error_code = p->refused.error_code};
    if (!p->refused.fetch)
        uncount(p);
    if (p->refused.host) {
        *reason = EXIT_MEMORY;
        return false;
    }
    if (p->refused.error_code == WALK_NONCANONICAL) {
        e.vector = VECTOR_GP;
        e.error_code = 0;
        v->counters[COUNT_EXCEPTION]++;
    } else {
        p->env->cr[2] = address;
        v->counters[COUNT_PAGE_FAULT]++;
    }
    deliver(p, &e);
    return true;
}

static enum exit_reason run_loop(pcpu *p, vcpu *v)
{
    for (;;) {
        enum exit_reason reason;
        bool ok;
        drop_stale(p);
        if (v->memory->epoch != p->epoch)
            flush_tlb(p);
        if (v->failed) {
            v->failed = false;
            return EXIT_CALLBACK;
        }
        if (p->shutdown)
            return EXIT_SHUTDOWN;
        if (p->debug) {
            p->debug = false;
            return EXIT_DEBUG;
        }
        if (v->leave) {
            v->leave = false;
            return v->access.mmio ? EXIT_MMIO : EXIT_PORT;
        }
        if (__atomic_exchange_n(&v->stop, false, __ATOMIC_ACQ_REL))
            return EXIT_STOP;
        if (v->work >= v->budget_end)
            return EXIT_BUDGET;
        if (deliver_pending(p, &ok)) {
            if (!ok && v->has_event)
                return EXIT_MEMORY;
            continue;
        }
        if (v->halted)
            return EXIT_HALT;

        set_limit(p);
        p->stopping = false;
        p->refused.valid = false;
        p->block_start = p->block_end = 0;
        const int error = unicorn.emu_start(p->engine, p->env->rip, 0, 0, 0);
        p->env->old_exception = -1;
        if (error == UC_ERR_EXCEPTION && p->refused.valid) {
            if (!handle_refusal(p, &reason))
                return reason;
            if (v->has_event)
                return EXIT_MEMORY;
        } else if (error != UC_ERR_OK) {
            return engine_error(v, error);
        } else if (!p->stopping && !p->shutdown && !v->failed && !v->has_event && !p->debug) {
            v->halted = true;
            v->counters[COUNT_HALT]++;
        } else if (v->has_event) {
            return EXIT_MEMORY;
        }
    }
}

enum exit_reason pcpu_run(pcpu *p, uint64_t budget)
{
    vcpu *v = p->vcpu;
    debug_install(p);
    p->shutdown = p->debug = false;
    v->leave = false;
    v->budget_end = v->work + budget < v->work ? UINT64_MAX : v->work + budget;
    v->running = true;
    const enum exit_reason reason = run_loop(p, v);
    v->running = false;
    return reason;
}

/* ---- open and close ---- */

const char *pcpu_open(pcpu *p, frames *f, int cpu_model)
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
    f->engines[p->index] = &p->stale;
    return NULL;
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
