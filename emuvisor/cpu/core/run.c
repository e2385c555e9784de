/* Counting, preemption, and the run loop around the engine. */
#include "hooks.h"

#include <stdio.h>

#include "debug.h"
#include "paging.h"

_Thread_local pcpu *pcpu_running;

void unicorn_block_left(void)
{
    if (pcpu_running)
        uncount(pcpu_running);
}

static bool interruptible(const cpu_env *env)
{
    return (env->eflags & FL_IF) && !(env->hflags & HF_INHIBIT_IRQ);
}

static bool nmi_deliverable(const vcpu *v, const cpu_env *env)
{
    return v->nmi && !(env->hflags2 & HF2_NMI) && !(env->hflags & HF_INHIBIT_IRQ);
}

/* Is there something to deliver to `v`, whose state is in `env`? */
static bool wakes(const vcpu *v, const cpu_env *env)
{
    return v->has_event || nmi_deliverable(v, env) || (v->interrupt && interruptible(env));
}

bool vcpu_ready(const vcpu *v) { return !v->halted || wakes(v, v->loaded ? v->loaded->env : &v->env); }

static void set_limit(pcpu *p)
{
    vcpu *v = p->vcpu;
    const bool look = v->interrupt || v->nmi || v->trace || v->inside;
    __atomic_store_n(&v->limit, look ? 0 : v->budget_end, __ATOMIC_RELEASE);
    if (__atomic_load_n(&v->stop, __ATOMIC_ACQUIRE) || __atomic_load_n(&p->stale.count, __ATOMIC_ACQUIRE))
        vcpu_attention(v);
}

static __attribute__((noinline)) void look(pcpu *p, vcpu *v)
{
    if (v->inside) {
        v->inside = false;
    } else if (__atomic_load_n(&v->stop, __ATOMIC_ACQUIRE) || v->failed || v->leave || v->spinning || p->debug
        || p->moved || v->work >= v->budget_end || __atomic_load_n(&p->stale.count, __ATOMIC_ACQUIRE)
        || wakes(v, p->env)) {
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

void on_block(uc_engine *engine, uint64_t address, uint32_t size, void *data)
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
    if (v->inside)
        return false;
    if (nmi_deliverable(v, p->env)) {
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
        if (vector < 0) { /* it has gone, so the pin is down: asking again for ever would hang the host */
            v->interrupt = false;
            return false;
        }
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
    if ((p->refused.again || p->refused.host) && !p->refused.fetch) { /* the instruction's breakpoint was passed */
        v->stepping_off = p->env->segs[S_CS].base + p->env->rip;
        v->steps_off = true;
        v->inside = true;
    }
    if (p->refused.again)
        return true;
    if (p->refused.host) {
        *reason = EXIT_MEMORY;
        return false;
    }
    if (p->refused.error_code == WALK_NONCANONICAL) {
        e.vector = VECTOR_GP;
        e.error_code = 0;
        v->counters[COUNT_EXCEPTION]++;
    } else if (p->refused.error_code == REFUSED_UNDEFINED) {
        e = (event){.vector = VECTOR_UD, .kind = EVENT_EXCEPTION};
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
        if (p->starved) {
            uncount(p);
            v->inside = true;
            return EXIT_MEMORY;
        }
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
        if (v->spinning) {
            v->spinning = false;
            v->loop_start = v->work; /* its next turn is as long a wait again */
            return EXIT_PAUSE;
        }
        if (v->halted && !wakes(v, p->env))
            return EXIT_HALT;
        if (v->work >= v->budget_end && !v->inside)
            return EXIT_BUDGET;
        if (deliver_pending(p, &ok)) {
            if (!ok && v->has_event)
                return EXIT_MEMORY;
            continue;
        }
        if (v->halted)
            return EXIT_HALT;

        set_limit(p);
        p->stopping = p->moved = false;
        p->refused.valid = p->refused.again = false;
        p->block_start = p->block_end = 0;
        if (p->env->cc_op == CC_OP_EFLAGS)
            p->env->eflags = env_rflags(p->env); /* on its way in the engine takes all flags from there */
        const int error = unicorn.emu_start(p->engine, p->env->rip, 0, 0, 0);
        p->env->old_exception = -1;
        if (error == UC_ERR_EXCEPTION && p->refused.valid) {
            if (!handle_refusal(p, &reason))
                return reason;
            if (v->has_event)
                return EXIT_MEMORY;
        } else if (error != UC_ERR_OK) {
            return engine_error(v, error);
        } else if (!p->stopping && !p->shutdown && !p->starved && !v->failed && !v->has_event && !p->debug) {
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
    p->shutdown = p->debug = p->starved = false;
    v->leave = false;
    v->budget_end = v->work + budget < v->work ? UINT64_MAX : v->work + budget;
    v->running = true;
    pcpu_running = p;
    const enum exit_reason reason = run_loop(p, v);
    pcpu_running = NULL;
    v->running = false;
    return reason;
}
