/* Delivery through an IDT of 8-byte gates: protected and virtual-8086 mode (Intel SDM vol. 3, 6.11 and 6.12,
 * the pseudocode of INT n in vol. 2, and 20.3 for VM86). */
#include "delivery.h"

#define GATE_SIZE 8u

/* the stack pointers of privilege levels 0 to 2 in a TSS (7.2.1, 7.6) */
#define TSS32_STACKS 4u
#define TSS16_STACKS 2u

typedef struct {
    uint32_t offset;
    uint16_t selector;
    unsigned type;
} gate;

static enum step read_gate(delivery *d, gate *gate)
{
    cpu_env *env = d->env;
    uint32_t entry = d->event->vector * GATE_SIZE;
    uint32_t error_code = entry | ERROR_IDT | d->ext;
    if (entry + GATE_SIZE - 1 > env->idt.limit)
        return raise_fault(d, VECTOR_GP, error_code);
    descriptor raw;
    TRY(read_descriptor(d, env->idt.base + entry, &raw));
    gate->type = descriptor_type(raw.high);
    gate->selector = (uint16_t)(raw.low >> 16);
    gate->offset = raw.low & 0xffff;
    if (gate->type & TYPE_32)
        gate->offset |= raw.high & 0xffff0000u;

    bool known = gate->type == TYPE_TASK_GATE || gate->type == TYPE_INTERRUPT_GATE16 ||
                 gate->type == TYPE_TRAP_GATE16 || gate->type == TYPE_INTERRUPT_GATE32 ||
                 gate->type == TYPE_TRAP_GATE32;
    if (raw.high & DESC_S || !known)
        return raise_fault(d, VECTOR_GP, error_code);
    if (d->event->kind == EVENT_SOFTWARE && descriptor_dpl(raw.high) < env_cpl(env))
        return raise_fault(d, VECTOR_GP, error_code);
    if (!(raw.high & DESC_P))
        return raise_fault(d, VECTOR_NP, error_code);
    return STEP_OK;
}

/* The stack that the TSS names for privilege level `level`. */
static enum step inner_stack(delivery *d, unsigned level, env_segment *stack, uint64_t *pointer)
{
    const env_segment *tss = &d->env->tr;
    uint32_t error_code = (tss->selector & SELECTOR_ERROR) | d->ext, esp = 0;
    uint16_t selector;
    unsigned pointer_size = descriptor_type(tss->flags) & TYPE_32 ? 4 : 2;
    uint32_t offset = pointer_size == 4 ? TSS32_STACKS + level * 8 : TSS16_STACKS + level * 4;
    if (offset + pointer_size + sizeof selector - 1 > tss->limit)
        return raise_fault(d, VECTOR_TS, error_code);
    TRY(read_system(d, tss->base + offset, &esp, pointer_size));
    TRY(read_system(d, tss->base + offset + pointer_size, &selector, sizeof selector));

    error_code = (selector & SELECTOR_ERROR) | d->ext;
    uint64_t address;
    descriptor data;
    if (!(selector & SELECTOR_ERROR) || (selector & SELECTOR_RPL) != level ||
        !descriptor_address(d->env, selector, &address))
        return raise_fault(d, VECTOR_TS, error_code);
    TRY(read_descriptor(d, address, &data));
    if (!is_writable_data(data.high) || descriptor_dpl(data.high) != level)
        return raise_fault(d, VECTOR_TS, error_code);
    if (!(data.high & DESC_P))
        return raise_fault(d, VECTOR_SS, error_code);
    TRY(set_accessed(d, address, &data));
    *stack = segment_from(selector, data);
    *pointer = esp;
    return STEP_OK;
}

static void build_frame(const delivery *d, frame *frame, bool inner)
{
    const cpu_env *env = d->env;
    const env_segment *segs = env->segs;
    if (in_vm86(env)) {
        frame_add(frame, segs[S_GS].selector);
        frame_add(frame, segs[S_FS].selector);
        frame_add(frame, segs[S_DS].selector);
        frame_add(frame, segs[S_ES].selector);
    }
    if (inner) {
        frame_add(frame, segs[S_SS].selector);
        frame_add(frame, env->regs[R_SP]);
    }
    frame_add(frame, saved_flags(d));
    frame_add(frame, segs[S_CS].selector);
    frame_add(frame, env->rip);
    if (d->event->has_error_code)
        frame_add(frame, d->event->error_code);
}

static enum step enter(delivery *d, const gate *gate)
{
    cpu_env *env = d->env;
    descriptor code;
    uint64_t code_address;
    TRY(load_handler(d, gate->selector, &code, &code_address));
    unsigned cpl = env_cpl(env), level = code.high & DESC_C ? cpl : descriptor_dpl(code.high);
    bool inner = level < cpl, vm86 = in_vm86(env);
    if (vm86 && level != 0)
        return raise_fault(d, VECTOR_GP, (gate->selector & SELECTOR_ERROR) | d->ext);
    TRY(set_accessed(d, code_address, &code));

    env_segment stack = env->segs[S_SS];
    frame frame = {.segment = &stack,
                   .pointer = (uint32_t)env->regs[R_SP],
                   .access = stack_access(level),
                   .size = gate->type & TYPE_32 ? 4 : 2};
    if (inner)
        TRY(inner_stack(d, level, &stack, &frame.pointer));
    build_frame(d, &frame, inner);
    if (!frame_fits(&frame))
        return raise_fault(d, VECTOR_SS, (inner ? stack.selector & SELECTOR_ERROR : 0) | d->ext);
    if (gate->offset > descriptor_limit(code))
        return raise_fault(d, VECTOR_GP, d->ext);
    TRY(frame_push(d, &frame));

    env->regs[R_SP] = frame.pointer;
    env->rip = gate->offset;
    env->segs[S_SS] = stack;
    env->segs[S_CS] = segment_from((gate->selector & ~SELECTOR_RPL) | level, code);
    if (vm86)
        env->segs[S_GS] = env->segs[S_FS] = env->segs[S_DS] = env->segs[S_ES] = (env_segment){0};
    clear_flags(env, FL_TF | FL_RF | FL_NT | FL_VM | (gate->type & TYPE_TRAP ? 0 : FL_IF));
    return STEP_OK;
}

enum step deliver_protected(delivery *d)
{
    bool done;
    TRY(deliver_vm86_software(d, &done));
    if (done)
        return STEP_OK;
    gate gate = {0};
    TRY(read_gate(d, &gate));
    return gate.type == TYPE_TASK_GATE ? deliver_task(d, gate.selector) : enter(d, &gate);
}
