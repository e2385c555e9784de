#include "events.h"

#include "delivery.h"

enum class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

/* Intel SDM vol. 3, table 6-4 */
static enum class class_of(const event *event)
{
    if (event->kind != EVENT_EXCEPTION)
        return BENIGN;
    switch (event->vector) {
    case VECTOR_DE:
    case VECTOR_TS:
    case VECTOR_NP:
    case VECTOR_SS:
    case VECTOR_GP:
        return CONTRIBUTORY;
    case VECTOR_PF:
        return PAGE_FAULT;
    case VECTOR_DF:
        return DOUBLE_FAULT;
    default:
        return BENIGN;
    }
}

/* Table 6-5: the event to deliver when `second` came up while `first` was being delivered. False: shutdown. */
static bool combine(const event *first, const event *second, event *next)
{
    enum class before = class_of(first), now = class_of(second);
    if (before == DOUBLE_FAULT)
        return false;
    bool twice = (before == CONTRIBUTORY && now == CONTRIBUTORY) || (before == PAGE_FAULT && now != BENIGN);
    *next = *second;
    if (twice)
        *next = (event){.vector = VECTOR_DF, .kind = EVENT_EXCEPTION, .has_error_code = true};
    return true;
}

static enum step deliver(delivery *d)
{
    if (!(d->env->cr[0] & CR0_PE))
        return deliver_real(d);
    return d->env->efer & EFER_LMA ? deliver_long(d) : deliver_protected(d);
}

enum deliver_result events_deliver(cpu_env *env, physical *memory, const event *first)
{
    uint8_t original[CHANGED_BYTES];
    uint64_t original_dr7 = env->dr[7];
    event current = *first;
    delivery d;
    d.env = env;
    d.memory = memory;
    d.event = &current;
    d.store_count = 0;
    memcpy(original, env, CHANGED_BYTES);
    for (;;) {
        d.ext = current.kind == EVENT_SOFTWARE ? 0 : ERROR_EXT;
        d.switched = false;
        memcpy(d.checkpoint, env, CHANGED_BYTES);
        enum step result = deliver(&d);
        if (result == STEP_OK) {
            env->hflags &= ~HF_INHIBIT_IRQ;
            env->old_exception = -1;
            env_update_hflags(env);
            return DELIVERED;
        }
        if (result == STEP_HOST) {
            undo_stores(&d);
            memcpy(env, original, CHANGED_BYTES);
            env->dr[7] = original_dr7;
            return DELIVER_HOST;
        }
        memcpy(env, d.checkpoint, CHANGED_BYTES);
        if (current.kind == EVENT_SOFTWARE && !d.switched)
            env->rip = current.instruction;
        if (d.fault.vector == VECTOR_PF)
            env->cr[2] = d.cr2;
        if (!combine(&current, &d.fault, &current)) {
            uint64_t cr2 = env->cr[2];
            memcpy(env, original, CHANGED_BYTES);
            env->cr[2] = cr2;
            env->dr[7] = original_dr7;
            return DELIVER_SHUTDOWN;
        }
    }
}
