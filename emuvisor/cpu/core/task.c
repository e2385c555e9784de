/* Delivery through a task gate: the hardware task switch (Intel SDM vol. 3, ch. 7). */
#include "delivery.h"

/* The 16- and 32-bit TSS (7.2.1, 7.6). The saved part begins with the instruction pointer, then flags, then
 * general and segment registers in encoding order. */
typedef struct {
    unsigned size;    /* the smallest limit, plus one */
    unsigned word;    /* bytes of a saved register */
    unsigned dynamic; /* offset of the instruction pointer */
    unsigned segments;
    unsigned segment_count;
    unsigned segment_stride;
    unsigned ldt;
} tss_format;

static const tss_format tss16 = {0x2c, 2, 0x0e, 0x22, 4, 2, 0x2a};
static const tss_format tss32 = {0x68, 4, 0x20, 0x48, 6, 4, 0x60};
#define TSS_LINK 0x00u
#define TSS32_CR3 0x1cu
#define TSS_MAX 0x68u

#define GENERAL_REGISTERS 8u
/* what a 16-bit TSS leaves in the upper half of a general register (80386 manual) */
#define UPPER_HALF_286 0xffff0000u
/* the RFLAGS bits that exist */
#define FLAGS_IMPLEMENTED 0x3f7fd5u
/* DR7: L0 to L3 and LE are of one task only (17.2.4) */
#define DR7_LOCAL 0x155u

typedef struct {
    uint16_t selector;
    uint64_t descriptor_address;
    descriptor descriptor;
    const tss_format *format;
    uint64_t base;
    uint8_t image[TSS_MAX];
} task;

static const tss_format *format_of(uint32_t high)
{
    return descriptor_type(high) & TYPE_32 ? &tss32 : &tss16;
}

static uint32_t image_word(const task *task, unsigned offset, unsigned size)
{
    uint32_t value = 0;
    memcpy(&value, task->image + offset, size);
    return value;
}

/* The checks before anything changes: the TSS descriptor, and both TSSs mapped. */
static enum step open_task(delivery *d, task *task)
{
    cpu_env *env = d->env;
    uint32_t error_code = (task->selector & SELECTOR_ERROR) | d->ext;
    if (task->selector & SELECTOR_TI || !descriptor_address(env, task->selector, &task->descriptor_address))
        return raise_fault(d, VECTOR_GP, error_code);
    TRY(read_descriptor(d, task->descriptor_address, &task->descriptor));
    uint32_t high = task->descriptor.high;
    if (high & DESC_S || (descriptor_type(high) != TYPE_TSS16 && descriptor_type(high) != TYPE_TSS32))
        return raise_fault(d, VECTOR_GP, error_code);
    if (!(high & DESC_P))
        return raise_fault(d, VECTOR_NP, error_code);
    task->format = format_of(high);
    if (descriptor_limit(task->descriptor) < task->format->size - 1)
        return raise_fault(d, VECTOR_TS, error_code);
    const tss_format *old = format_of(env->tr.flags);
    if (env->tr.limit < old->size - 1)
        return raise_fault(d, VECTOR_TS, (env->tr.selector & SELECTOR_ERROR) | d->ext);

    task->base = descriptor_base(task->descriptor);
    TRY(read_system(d, task->base, task->image, task->format->size));
    TRY(probe_system(d, env->tr.base + old->dynamic, old->ldt - old->dynamic));
    TRY(probe_system(d, task->base + TSS_LINK, sizeof(uint16_t)));
    return probe_system(d, task->descriptor_address + DESCRIPTOR_ACCESS_BYTE, 1);
}

static enum step save_old_task(delivery *d)
{
    const cpu_env *env = d->env;
    const tss_format *format = format_of(env->tr.flags);
    uint64_t to = env->tr.base + format->dynamic;
    uint64_t flags = saved_flags(d);
    TRY(write_system(d, to, &env->rip, format->word));
    TRY(write_system(d, to += format->word, &flags, format->word));
    for (unsigned i = 0; i < GENERAL_REGISTERS; i++)
        TRY(write_system(d, to += format->word, &env->regs[i], format->word));
    for (unsigned i = 0; i < format->segment_count; i++) {
        uint64_t slot = env->tr.base + format->segments + i * format->segment_stride;
        TRY(write_system(d, slot, &env->segs[i].selector, sizeof(uint16_t)));
    }
    return STEP_OK;
}

static enum step set_busy(delivery *d, task *task)
{
    task->descriptor.high |= TYPE_BUSY << 8;
    uint8_t access_byte = (uint8_t)(task->descriptor.high >> 8);
    return write_system(d, task->descriptor_address + DESCRIPTOR_ACCESS_BYTE, &access_byte, sizeof access_byte);
}

/* What a fault goes back to from now on. */
static void checkpoint(delivery *d)
{
    env_update_hflags(d->env);
    memcpy(d->checkpoint, d->env, CHANGED_BYTES);
}

/* The new task's registers. Segment caches stay empty until their descriptors have been checked; the privilege
 * level is CS.RPL at once. */
static void commit(delivery *d, const task *task)
{
    cpu_env *env = d->env;
    const tss_format *format = task->format;
    bool is32 = format == &tss32;
    unsigned at = format->dynamic;
    env->tr = segment_from(task->selector, task->descriptor);
    env->cr[0] |= CR0_TS;
    if (is32 && env->cr[0] & CR0_PG)
        env->cr[3] = image_word(task, TSS32_CR3, 4);
    env->dr[7] &= ~(uint64_t)DR7_LOCAL;
    env->rip = image_word(task, at, format->word);
    env_set_rflags(env, (image_word(task, at += format->word, format->word) & FLAGS_IMPLEMENTED) | FL_NT);
    for (unsigned i = 0; i < GENERAL_REGISTERS; i++)
        env->regs[i] = image_word(task, at += format->word, format->word) | (is32 ? 0 : UPPER_HALF_286);
    for (unsigned i = 0; i < 6; i++) {
        uint32_t selector = 0;
        if (i < format->segment_count)
            selector = image_word(task, format->segments + i * format->segment_stride, 2);
        env->segs[i] = in_vm86(env) ? segment_vm86(selector) : (env_segment){.selector = selector};
    }
    if (!in_vm86(env))
        env->segs[S_SS].flags = (env->segs[S_CS].selector & SELECTOR_RPL) << DESC_DPL_SHIFT;
    env->ldt = (env_segment){.selector = image_word(task, format->ldt, 2)};
    d->switched = true;
    checkpoint(d);
}

static bool is_null(const env_segment *segment) { return !(segment->selector & SELECTOR_ERROR); }

static enum step bad_selector(delivery *d, uint8_t vector, const env_segment *segment)
{
    return raise_fault(d, vector, (segment->selector & SELECTOR_ERROR) | d->ext);
}

static enum step load_ldt(delivery *d)
{
    env_segment *ldt = &d->env->ldt;
    uint64_t address;
    descriptor new;
    if (is_null(ldt))
        return STEP_OK;
    if (ldt->selector & SELECTOR_TI || !descriptor_address(d->env, (uint16_t)ldt->selector, &address))
        return bad_selector(d, VECTOR_TS, ldt);
    TRY(read_descriptor(d, address, &new));
    if (new.high & DESC_S || descriptor_type(new.high) != TYPE_LDT || !(new.high & DESC_P))
        return bad_selector(d, VECTOR_TS, ldt);
    *ldt = segment_from(ldt->selector, new);
    checkpoint(d);
    return STEP_OK;
}

/* Table 7-1: may segment register `index` hold a descriptor with these attributes? */
static bool descriptor_fits(unsigned index, uint32_t high, unsigned cpl, unsigned rpl)
{
    unsigned dpl = descriptor_dpl(high);
    switch (index) {
    case S_CS:
        return is_code(high) && (high & DESC_C ? dpl <= rpl : dpl == rpl);
    case S_SS:
        return is_writable_data(high) && dpl == cpl && rpl == cpl;
    default:
        if (!(high & DESC_S) || (is_code(high) && !(high & DESC_R)))
            return false;
        return (is_code(high) && high & DESC_C) || (dpl >= cpl && dpl >= rpl);
    }
}

static enum step load_segment(delivery *d, unsigned index)
{
    env_segment *segment = &d->env->segs[index];
    uint64_t address;
    descriptor new;
    if (is_null(segment) && index != S_CS && index != S_SS)
        return STEP_OK;
    if (is_null(segment) || !descriptor_address(d->env, (uint16_t)segment->selector, &address))
        return bad_selector(d, VECTOR_TS, segment);
    TRY(read_descriptor(d, address, &new));
    if (!descriptor_fits(index, new.high, env_cpl(d->env), segment->selector & SELECTOR_RPL))
        return bad_selector(d, VECTOR_TS, segment);
    if (!(new.high & DESC_P))
        return bad_selector(d, index == S_SS ? VECTOR_SS : VECTOR_NP, segment);
    TRY(set_accessed(d, address, &new));
    *segment = segment_from(segment->selector, new);
    checkpoint(d);
    return STEP_OK;
}

/* The error code goes on the new task's stack. */
static enum step finish(delivery *d, const task *task)
{
    cpu_env *env = d->env;
    frame frame = {.segment = &env->segs[S_SS],
                   .pointer = env->regs[R_SP],
                   .access = stack_access(env_cpl(env)),
                   .size = task->format->word};
    if (d->event->has_error_code)
        frame_add(&frame, d->event->error_code);
    if (!frame_fits(&frame))
        return raise_fault(d, VECTOR_SS, d->ext);
    if (env->rip > env->segs[S_CS].limit)
        return raise_fault(d, VECTOR_GP, d->ext);
    TRY(frame_push(d, &frame));
    env->regs[R_SP] = frame.pointer;
    return STEP_OK;
}

enum step deliver_task(delivery *d, uint16_t selector)
{
    static const unsigned load_order[] = {S_CS, S_SS, S_DS, S_ES, S_FS, S_GS};
    task task = {.selector = selector};
    TRY(open_task(d, &task));
    uint16_t link = (uint16_t)d->env->tr.selector;
    TRY(save_old_task(d));
    TRY(write_system(d, task.base + TSS_LINK, &link, sizeof link));
    TRY(set_busy(d, &task));
    commit(d, &task);
    TRY(load_ldt(d));
    if (!in_vm86(d->env))
        for (unsigned i = 0; i < 6; i++)
            TRY(load_segment(d, load_order[i]));
    return finish(d, &task);
}
