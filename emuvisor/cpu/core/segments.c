#include "segments.h"

#define GRANULARITY_SHIFT 12
#define VM86_LIMIT 0xffffu

uint32_t descriptor_base(descriptor descriptor)
{
    return descriptor.low >> 16 | (descriptor.high & 0xff) << 16 | (descriptor.high & 0xff000000u);
}

uint32_t descriptor_limit(descriptor descriptor)
{
    uint32_t limit = (descriptor.low & 0xffff) | (descriptor.high & 0xf0000);
    return descriptor.high & DESC_G ? limit << GRANULARITY_SHIFT | 0xfff : limit;
}

env_segment segment_from(uint32_t selector, descriptor descriptor)
{
    return (env_segment){.selector = selector,
                         .base = descriptor_base(descriptor),
                         .limit = descriptor_limit(descriptor),
                         .flags = descriptor.high & DESC_ATTRIBUTES};
}

env_segment segment_vm86(uint32_t selector)
{
    return (env_segment){
        .selector = selector, .base = selector << 4, .limit = VM86_LIMIT, .flags = VM86_SEGMENT};
}

static uint32_t privilege_level(const cpu_env *env)
{
    if (!(env->cr[0] & CR0_PE))
        return 0;
    return in_vm86(env) ? 3 : descriptor_dpl(env->segs[S_SS].flags);
}

void env_update_hflags(cpu_env *env)
{
    const uint32_t computed = HF_CPL | HF_CS32 | HF_SS32 | HF_ADDSEG | HF_PE | HF_TF | HF_MP | HF_EM | HF_TS |
                              HF_IOPL | HF_LMA | HF_CS64 | HF_RF | HF_VM | HF_AC | HF_OSFXSR | HF_SMAP;
    const env_segment *segs = env->segs;
    uint32_t hflags = privilege_level(env);
    if (env->cr[0] & CR0_PE)
        hflags |= HF_PE;
    if (env->cr[0] & CR0_MP)
        hflags |= HF_MP;
    if (env->cr[0] & CR0_EM)
        hflags |= HF_EM;
    if (env->cr[0] & CR0_TS)
        hflags |= HF_TS;
    if (env->cr[4] & CR4_OSFXSR)
        hflags |= HF_OSFXSR;
    if (env->cr[4] & CR4_SMAP)
        hflags |= HF_SMAP;
    if (env->efer & EFER_LMA)
        hflags |= HF_LMA;
    if (env->efer & EFER_LMA && segs[S_CS].flags & DESC_L) {
        /* SS.B and the bases of DS, ES and SS mean nothing here; one value lets translations be shared */
        hflags |= HF_CS64 | HF_CS32 | HF_SS32;
    } else {
        if (segs[S_CS].flags & DESC_B)
            hflags |= HF_CS32;
        if (segs[S_SS].flags & DESC_B)
            hflags |= HF_SS32;
        bool flat = hflags & HF_PE && !in_vm86(env) && hflags & HF_CS32 &&
                    !(segs[S_DS].base | segs[S_ES].base | segs[S_SS].base);
        if (!flat)
            hflags |= HF_ADDSEG;
    }
    env->hflags = (env->hflags & ~computed) | hflags;
}
