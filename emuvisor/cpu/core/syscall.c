/* SYSCALL and SYSENTER (Intel SDM vol. 2; AMD APM vol. 3 for SYSCALL outside of long mode). */
#include "delivery.h"

#define STAR_TARGET UINT32_MAX
#define STAR_SYSCALL_SELECTOR_SHIFT 32
#define STACK_SELECTOR_STEP 8u

static enum deliver_result fault(cpu_env *env, physical *memory, uint8_t vector, bool has_error_code)
{
    event event = {.vector = vector, .kind = EVENT_EXCEPTION, .has_error_code = has_error_code};
    return events_deliver(env, memory, &event);
}

static env_segment flat(uint32_t selector, uint32_t flags)
{
    return (env_segment){.selector = selector & UINT16_MAX, .limit = UINT32_MAX, .flags = flags};
}

/* Enter ring 0 with flat segments: code at `selector`, stack at the next descriptor. */
static void enter(cpu_env *env, uint32_t selector, uint64_t flags)
{
    bool long_mode = env->efer & EFER_LMA;
    selector &= SELECTOR_ERROR;
    env->segs[S_CS] = flat(selector, long_mode ? FLAT_CODE64 : FLAT_CODE32);
    env->segs[S_SS] = flat(selector + STACK_SELECTOR_STEP, FLAT_DATA);
    env_set_rflags(env, flags);
    env->hflags &= ~HF_INHIBIT_IRQ;
    env->old_exception = -1;
    env_update_hflags(env);
}

enum deliver_result events_syscall(cpu_env *env, physical *memory, unsigned length)
{
    if (!(env->efer & EFER_SCE) || !(env->cr[0] & CR0_PE) || in_vm86(env))
        return fault(env, memory, VECTOR_UD, false);
    uint64_t flags = env_rflags(env) & ~(uint64_t)FL_RF, next = env->rip + length;
    uint32_t selector = (uint32_t)(env->star >> STAR_SYSCALL_SELECTOR_SHIFT) & UINT16_MAX;
    if (env->efer & EFER_LMA) {
        bool from_64bit = env->hflags & HF_CS64;
        env->regs[R_CX] = from_64bit ? next : (uint32_t)next;
        env->regs[R_R11] = flags;
        env->rip = from_64bit ? env->lstar : env->cstar;
        enter(env, selector, flags & ~env->fmask);
    } else {
        env->regs[R_CX] = (uint32_t)next;
        env->rip = env->star & STAR_TARGET;
        enter(env, selector, flags & ~(uint64_t)(FL_VM | FL_IF));
    }
    return DELIVERED;
}

enum deliver_result events_sysenter(cpu_env *env, physical *memory)
{
    if (!(env->cr[0] & CR0_PE) || !(env->sysenter_cs & SELECTOR_ERROR))
        return fault(env, memory, VECTOR_GP, true);
    bool long_mode = env->efer & EFER_LMA;
    env->regs[R_SP] = long_mode ? env->sysenter_esp : (uint32_t)env->sysenter_esp;
    env->rip = long_mode ? env->sysenter_eip : (uint32_t)env->sysenter_eip;
    enter(env, env->sysenter_cs, env_rflags(env) & ~(uint64_t)(FL_VM | FL_IF | FL_RF));
    return DELIVERED;
}
