/* Permission to use I/O ports (Intel SDM vol. 1, 18.5). */
#include "delivery.h"

#define TSS_IO_MAP_BASE 0x66u
#define TSS_LIMIT_MIN 0x67u
#define IOPL_SHIFT 12

/* Are all bits of the TSS's map clear? The processor always reads two bytes of it. */
static enum step read_map(delivery *d, uint16_t port, unsigned size, bool *allowed)
{
    const env_segment *tss = &d->env->tr;
    uint16_t io_map, bits;
    *allowed = false;
    if (!(descriptor_type(tss->flags) & TYPE_32) || tss->limit < TSS_LIMIT_MIN)
        return STEP_OK;
    TRY(read_system(d, tss->base + TSS_IO_MAP_BASE, &io_map, sizeof io_map));
    uint32_t offset = io_map + port / 8u;
    if (offset + sizeof bits - 1 > tss->limit)
        return STEP_OK;
    TRY(read_system(d, tss->base + offset, &bits, sizeof bits));
    *allowed = !((unsigned)bits >> (port & 7) & ((1u << size) - 1));
    return STEP_OK;
}

enum deliver_result events_port_allowed(cpu_env *env, physical *memory, uint16_t port, unsigned size,
                                        bool *allowed, event *fault, uint64_t *fault_address)
{
    *allowed = true;
    if (!(env->cr[0] & CR0_PE) || (!in_vm86(env) && env_cpl(env) <= (env->eflags & FL_IOPL) >> IOPL_SHIFT))
        return DELIVERED;
    delivery d;
    d.env = env;
    d.memory = memory;
    d.cr2 = 0;
    enum step result = read_map(&d, port, size, allowed);
    if (result == STEP_HOST)
        return DELIVER_HOST;
    if (result == STEP_OK && !*allowed)
        result = raise_fault(&d, VECTOR_GP, 0);
    if (result == STEP_FAULT) {
        *allowed = false;
        *fault = d.fault;
        *fault_address = d.cr2;
    }
    return DELIVERED;
}
