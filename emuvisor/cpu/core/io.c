/* What the guest's owner answers: ports, MMIO, CPUID; and the time stamp counter. */
#include "hooks.h"

#include "paging.h"

/* Work charged for a port or MMIO access: 1 us of guest time, as on an ISA bus. Without it a guest that polls a
 * timer would need hundreds of accesses for a microsecond to pass. */
#define ACCESS_WORK 1000

static void fail(pcpu *p)
{
    p->vcpu->failed = true;
    vcpu_attention(p->vcpu);
}

int on_rdtsc(uc_engine *engine, void *data)
{
    pcpu *p = data;
    p->vcpu->work += RDTSC_WORK;
    const uint64_t tsc = vcpu_tsc(p->vcpu);
    (void)engine;
    p->vcpu->counters[COUNT_RDTSC]++;
    p->env->regs[R_AX] = (uint32_t)tsc;
    p->env->regs[R_DX] = tsc >> 32;
    return 1;
}

int on_rdtscp(uc_engine *engine, void *data)
{
    pcpu *p = data;
    p->env->regs[R_CX] = (uint32_t)p->env->tsc_aux;
    return on_rdtsc(engine, data);
}

static const cpuid_answer *cpuid(pcpu *p, uint32_t leaf, uint32_t subleaf)
{
    vcpu *v = p->vcpu;
    cpuid_answer *answer = &v->cpuid[(leaf ^ leaf >> 27 ^ subleaf << 3) % CPUID_ANSWERS];
    if (answer->valid && answer->leaf == leaf && answer->subleaf == subleaf)
        return answer;
    *answer = (cpuid_answer){.leaf = leaf, .subleaf = subleaf};
    answer->valid = v->callbacks->cpuid(v, leaf, subleaf, answer->registers);
    if (!answer->valid)
        fail(p);
    return answer;
}

int on_cpuid(uc_engine *engine, void *data)
{
    pcpu *p = data;
    uint64_t *regs = p->env->regs;
    (void)engine;
    p->vcpu->counters[COUNT_CPUID]++;
    const cpuid_answer *answer = cpuid(p, (uint32_t)regs[R_AX], (uint32_t)regs[R_CX]);
    regs[R_AX] = answer->registers[0];
    regs[R_BX] = answer->registers[1];
    regs[R_CX] = answer->registers[2];
    regs[R_DX] = answer->registers[3];
    return 1;
}

void handler_done(pcpu *p, bool ok)
{
    if (!ok)
        fail(p);
    if (p->vcpu->leave)
        vcpu_attention(p->vcpu);
    if (p->vcpu->memory->epoch != p->epoch) {
        flush_tlb(p);
        p->moved = true; /* perhaps the code that runs: blocks that know each other would go on where it was */
        vcpu_attention(p->vcpu);
    }
}

/* The exit carries the access whose handler asked to leave, not a later one of the same block. */
static void end_access(pcpu *p, bool ok, bool left_before, io_access access)
{
    p->vcpu->work += ACCESS_WORK;
    if (!left_before)
        p->vcpu->access = access;
    handler_done(p, ok);
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

uint32_t on_in(uc_engine *engine, uint32_t port, int size, void *data)
{
    pcpu *p = data;
    vcpu *v = p->vcpu;
    const bool left = v->leave;
    uint32_t value = 0;
    (void)engine;
    check_port(p, (uint16_t)port, (unsigned)size);
    v->counters[COUNT_PORT_READ]++;
    const bool ok = v->callbacks->port_read(v, (uint16_t)port, (unsigned)size, &value);
    end_access(p, ok, left, (io_access){port & 0xffff, value, (uint8_t)size, false, false});
    return value;
}

void on_out(uc_engine *engine, uint32_t port, int size, uint32_t value, void *data)
{
    pcpu *p = data;
    vcpu *v = p->vcpu;
    const bool left = v->leave;
    (void)engine;
    check_port(p, (uint16_t)port, (unsigned)size);
    v->counters[COUNT_PORT_WRITE]++;
    const bool ok = v->callbacks->port_write(v, (uint16_t)port, (unsigned)size, value);
    end_access(p, ok, left, (io_access){port & 0xffff, value, (uint8_t)size, true, false});
}

uint64_t on_mmio_read(uc_engine *engine, uint64_t gpa, unsigned size, void *data)
{
    pcpu *p = data;
    vcpu *v = p->vcpu;
    const bool left = v->leave;
    uint64_t value = 0;
    (void)engine;
    v->counters[COUNT_MMIO_READ]++;
    const bool ok = v->callbacks->mmio_read(v, gpa, size, &value);
    end_access(p, ok, left, (io_access){gpa, value, (uint8_t)size, false, true});
    return value;
}

void on_mmio_write(uc_engine *engine, uint64_t gpa, unsigned size, uint64_t value, void *data)
{
    pcpu *p = data;
    vcpu *v = p->vcpu;
    const bool left = v->leave;
    (void)engine;
    v->counters[COUNT_MMIO_WRITE]++;
    const bool ok = v->callbacks->mmio_write(v, gpa, size, value);
    end_access(p, ok, left, (io_access){gpa, value, (uint8_t)size, true, true});
}
