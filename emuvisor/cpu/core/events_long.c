/* Delivery through an IDT of 16-byte gates: long mode (Intel SDM vol. 3, 6.14). */
#include "delivery.h"

/* the 64-bit TSS (7.7) */
#define TSS64_RSP0 0x04u
#define TSS64_IST1 0x24u
#define GATE_IST 7u
#define STACK_ALIGNMENT 16u
#define WORD 8u
#define LAST_CANONICAL_BIT 47

typedef struct {
    descriptor descriptor;
    uint32_t offset_high;
    uint32_t reserved;
} gate;

static bool is_canonical(uint64_t address)
{
    int64_t sign = (int64_t)address >> LAST_CANONICAL_BIT;
    return sign == 0 || sign == -1;
}

static enum step read_gate(delivery *d, gate *gate)
{
    cpu_env *env = d->env;
    uint32_t entry = d->event->vector * (uint32_t)sizeof *gate;
    uint32_t error_code = d->event->vector * 8u | ERROR_IDT | d->ext, high;
    if (entry + sizeof *gate - 1 > env->idt.limit)
        return raise_fault(d, VECTOR_GP, error_code);
    TRY(read_system(d, env->idt.base + entry, gate, sizeof *gate));
    high = gate->descriptor.high;
    unsigned type = descriptor_type(high);
    if (high & DESC_S || (type != TYPE_INTERRUPT_GATE32 && type != TYPE_TRAP_GATE32))
        return raise_fault(d, VECTOR_GP, error_code);
    if (d->event->kind == EVENT_SOFTWARE && descriptor_dpl(high) < env_cpl(env))
        return raise_fault(d, VECTOR_GP, error_code);
    if (!(high & DESC_P))
        return raise_fault(d, VECTOR_NP, error_code);
    return STEP_OK;
}

/* The stack pointer that the TSS holds for an IST number or, when that is 0, for privilege level `level`. */
static enum step tss_stack(delivery *d, unsigned ist, unsigned level, uint64_t *pointer)
{
    const env_segment *tss = &d->env->tr;
    uint32_t offset = ist ? TSS64_IST1 + (ist - 1) * WORD : TSS64_RSP0 + level * WORD;
    if (offset + WORD - 1 > tss->limit)
        return raise_fault(d, VECTOR_TS, (tss->selector & SELECTOR_ERROR) | d->ext);
    return read_system(d, tss->base + offset, pointer, WORD);
}

enum step deliver_long(delivery *d)
{
    cpu_env *env = d->env;
    gate gate = {0};
    TRY(read_gate(d, &gate));
    uint16_t selector = (uint16_t)(gate.descriptor.low >> 16);
    descriptor code;
    uint64_t code_address;
    TRY(load_handler(d, selector, &code, &code_address));
    if (!(code.high & DESC_L) || code.high & DESC_B)
        return raise_fault(d, VECTOR_GP, (selector & SELECTOR_ERROR) | d->ext);
    TRY(set_accessed(d, code_address, &code));

    unsigned cpl = env_cpl(env), level = code.high & DESC_C ? cpl : descriptor_dpl(code.high);
    unsigned ist = gate.descriptor.high & GATE_IST;
    uint64_t pointer = env->regs[R_SP];
    if (ist || level < cpl)
        TRY(tss_stack(d, ist, level, &pointer));

    frame frame = {.pointer = pointer & ~(uint64_t)(STACK_ALIGNMENT - 1),
                   .access = stack_access(level),
                   .size = WORD};
    frame_add(&frame, env->segs[S_SS].selector);
    frame_add(&frame, env->regs[R_SP]);
    frame_add(&frame, saved_flags(d));
    frame_add(&frame, env->segs[S_CS].selector);
    frame_add(&frame, env->rip);
    if (d->event->has_error_code)
        frame_add(&frame, d->event->error_code);
    if (!is_canonical(frame.pointer - 1) || !is_canonical(frame.pointer - frame.count * WORD))
        return raise_fault(d, VECTOR_SS, d->ext);
    uint64_t offset = (gate.descriptor.low & 0xffff) | (gate.descriptor.high & 0xffff0000u) |
                      (uint64_t)gate.offset_high << 32;
    if (!is_canonical(offset))
        return raise_fault(d, VECTOR_GP, d->ext);
    TRY(frame_push(d, &frame));

    env->regs[R_SP] = frame.pointer;
    env->rip = offset;
    env->segs[S_CS] = segment_from((selector & ~SELECTOR_RPL) | level, code);
    if (level < cpl) /* a null selector whose RPL is the new CPL (6.14.4) */
        env->segs[S_SS] = (env_segment){.selector = level, .flags = level << DESC_DPL_SHIFT};
    bool trap = descriptor_type(gate.descriptor.high) & TYPE_TRAP;
    clear_flags(env, FL_TF | FL_RF | FL_NT | FL_VM | (trap ? 0 : FL_IF));
    return STEP_OK;
}
