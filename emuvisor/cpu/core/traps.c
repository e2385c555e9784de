/* Exceptions, software interrupts and system calls of the guest, on their way to its own handlers. */
#include "hooks.h"

#include "paging.h"
#include "supervisor.h"

/* Work charged for delivering an event, so that a guest whose handlers fault for ever uses up its budget. */
#define EVENT_WORK 32
#define SYSTEM_CALL_LENGTH 2 /* 0F 05 and 0F 34 */

void normalise_flags(pcpu *p)
{
    uint32_t flags = 0;
    if (p->env->cc_op == CC_OP_EFLAGS)
        flags = (uint32_t)env_rflags(p->env);
    else
        unicorn.reg_read(p->engine, UC_X86_REG_EFLAGS, &flags);
    env_set_rflags(p->env, flags);
}

/* The last counted block was left at RIP: what is behind RIP has not run and will be counted again. */
void uncount(pcpu *p)
{
    const uint64_t rip = p->env->segs[S_CS].base + p->env->rip;
    if (rip >= p->block_start && rip < p->block_end)
        p->vcpu->work -= p->block_end - rip;
    p->block_start = p->block_end = 0;
}

/* True: delivered. False: the guest is shut down, or delivery has to be repeated (v->has_event). */
bool deliver(pcpu *p, const event *e)
{
    vcpu *v = p->vcpu;
    const uint64_t cr0 = p->env->cr[0], cr3 = p->env->cr[3];
    normalise_flags(p);
    v->work += EVENT_WORK;
    const enum deliver_result result = events_deliver(p->env, &v->memory->physical, e);
    if (v->memory->epoch != p->epoch || p->env->cr[0] != cr0 || p->env->cr[3] != cr3)
        flush_tlb(p);
    if (result == DELIVERED) {
        v->inside = false;
        return true;
    }
    if (result == DELIVER_SHUTDOWN) {
        p->shutdown = true;
    } else {
        v->work -= EVENT_WORK; /* it is charged when it has been delivered */
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
    return vector == VECTOR_DF || (vector >= VECTOR_TS && vector <= VECTOR_PF) || vector == VECTOR_AC;
}

void on_interrupt(uc_engine *engine, uint32_t vector, void *data)
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
        e.instruction = env->rip - (vector == VECTOR_BP || vector == VECTOR_OF ? 1 : 2); /* INT3 and INTO; INT n */
        p->vcpu->counters[COUNT_SOFT_INTERRUPT]++;
    } else {
        e.has_error_code = has_error_code(vector);
        e.error_code = (uint32_t)env->error_code;
        p->vcpu->counters[COUNT_EXCEPTION]++;
    }
    deliver_or_stop(p, &e);
}

bool on_invalid_instruction(uc_engine *engine, void *data)
{
    pcpu *p = data;
    uint8_t opcode = 0;
    event e = {.vector = VECTOR_UD, .kind = EVENT_EXCEPTION};
    (void)engine;
    uncount(p);
    supervisor_read_code(p->env, &p->vcpu->memory->physical, &opcode, 1);
    if (opcode == 0xf1) { /* ICEBP, which this engine does not know */
        e = (event){.vector = VECTOR_DB, .kind = EVENT_ICEBP};
        p->env->rip++;
    }
    p->vcpu->counters[COUNT_EXCEPTION]++;
    deliver_or_stop(p, &e);
    return true;
}

/* After SYSCALL or SYSENTER. Unicorn goes on to add the instruction's length to RIP. */
static void enter_kernel(pcpu *p, enum deliver_result result)
{
    p->vcpu->counters[COUNT_SYSCALL]++;
    p->env->rip -= SYSTEM_CALL_LENGTH;
    p->shutdown |= result == DELIVER_SHUTDOWN;
    p->starved |= result == DELIVER_HOST;
    if (result != DELIVERED)
        unicorn.emu_stop(p->engine);
}

void on_syscall(uc_engine *engine, void *data)
{
    pcpu *p = data;
    (void)engine;
    normalise_flags(p);
    enter_kernel(p, events_syscall(p->env, &p->vcpu->memory->physical, SYSTEM_CALL_LENGTH));
}

void on_sysenter(uc_engine *engine, void *data)
{
    pcpu *p = data;
    (void)engine;
    normalise_flags(p);
    enter_kernel(p, events_sysenter(p->env, &p->vcpu->memory->physical));
}
