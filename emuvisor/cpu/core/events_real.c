/* Delivery through a table of 16-bit far pointers: real mode (Intel SDM vol. 3, 20.1.4), and INT n that
 * virtual-8086 mode extensions redirect to the 8086 program (20.3.3). */
#include "delivery.h"

#define VECTOR_SIZE 4u

/* 32-bit TSS: where the interrupt redirection bitmap ends and the I/O map begins (20.3.3, 7.2.1) */
#define TSS_IO_MAP_BASE 0x66u
#define TSS_LIMIT_MIN 0x67u
#define REDIRECTION_BYTES 32u

typedef struct {
    uint16_t offset;
    uint16_t selector;
} far_pointer;

/* Push FLAGS, CS and IP, and jump. */
static enum step enter(delivery *d, uint64_t flags, const env_segment *code, uint16_t offset)
{
    cpu_env *env = d->env;
    frame frame = {.segment = &env->segs[S_SS],
                   .pointer = (uint32_t)env->regs[R_SP],
                   .access = stack_access(env_cpl(env)),
                   .size = 2};
    frame_add(&frame, flags);
    frame_add(&frame, env->segs[S_CS].selector);
    frame_add(&frame, env->rip);
    if (!frame_fits(&frame))
        return raise_fault(d, VECTOR_SS, 0);
    TRY(frame_push(d, &frame));
    env->regs[R_SP] = frame.pointer;
    env->segs[S_CS] = *code;
    env->rip = offset;
    return STEP_OK;
}

enum step deliver_real(delivery *d)
{
    cpu_env *env = d->env;
    uint32_t entry = d->event->vector * VECTOR_SIZE;
    if (entry + VECTOR_SIZE - 1 > env->idt.limit)
        return raise_fault(d, VECTOR_GP, 0);
    far_pointer handler;
    TRY(read_system(d, env->idt.base + entry, &handler, sizeof handler));
    env_segment code = env->segs[S_CS]; /* limit and attributes stay */
    code.selector = handler.selector;
    code.base = (uint32_t)handler.selector << 4;
    TRY(enter(d, saved_flags(d), &code, handler.offset));
    clear_flags(env, FL_IF | FL_TF | FL_AC | FL_RF);
    return STEP_OK;
}

/* Does the TSS redirect this INT n to the monitor (bit set) or to the 8086 program (clear)? */
static enum step read_redirection(delivery *d, bool *to_monitor)
{
    const env_segment *tss = &d->env->tr;
    uint16_t io_map;
    uint8_t bits;
    if (!(descriptor_type(tss->flags) & TYPE_32) || tss->limit < TSS_LIMIT_MIN)
        return raise_fault(d, VECTOR_GP, 0);
    TRY(read_system(d, tss->base + TSS_IO_MAP_BASE, &io_map, sizeof io_map));
    uint32_t offset = io_map - REDIRECTION_BYTES + d->event->vector / 8u;
    if (io_map < REDIRECTION_BYTES || offset > tss->limit)
        return raise_fault(d, VECTOR_GP, 0);
    TRY(read_system(d, tss->base + offset, &bits, sizeof bits));
    *to_monitor = bits >> (d->event->vector & 7) & 1;
    return STEP_OK;
}

static enum step redirect(delivery *d, bool iopl3)
{
    uint64_t flags = saved_flags(d);
    far_pointer handler;
    TRY(read_system(d, d->event->vector * VECTOR_SIZE, &handler, sizeof handler));
    if (!iopl3) /* the program sees VIF in the place of IF */
        flags = (flags & ~(uint64_t)FL_IF) | (flags & FL_VIF ? FL_IF : 0) | FL_IOPL;
    env_segment code = segment_vm86(handler.selector);
    TRY(enter(d, flags, &code, handler.offset));
    clear_flags(d->env, FL_TF | FL_RF | (iopl3 ? FL_IF : FL_VIF));
    return STEP_OK;
}

enum step deliver_vm86_software(delivery *d, bool *done)
{
    const cpu_env *env = d->env;
    *done = false;
    if (!in_vm86(env) || d->event->kind != EVENT_SOFTWARE)
        return STEP_OK;
    /* INT3 and INTO, unlike INT 3 and INT 4, are one byte long and not sensitive to IOPL */
    uint8_t vector = d->event->vector;
    if ((vector == VECTOR_BP || vector == VECTOR_OF) && (uint16_t)(env->rip - d->event->instruction) == 1)
        return STEP_OK;
    bool iopl3 = (env->eflags & FL_IOPL) == FL_IOPL, to_monitor = true;
    if (env->cr[4] & CR4_VME)
        TRY(read_redirection(d, &to_monitor));
    if (!to_monitor) {
        *done = true;
        return redirect(d, iopl3);
    }
    return iopl3 ? STEP_OK : raise_fault(d, VECTOR_GP, 0);
}
