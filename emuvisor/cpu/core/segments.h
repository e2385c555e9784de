/* Descriptors, and the hidden state that follows from segment registers (Intel SDM vol. 3, 3.4). */
#ifndef EMUVISOR_SEGMENTS_H
#define EMUVISOR_SEGMENTS_H

#include "env.h"

/* system descriptor types (3.5) */
enum {
    TYPE_TSS16 = 1,
    TYPE_LDT = 2,
    TYPE_TASK_GATE = 5,
    TYPE_INTERRUPT_GATE16 = 6,
    TYPE_TRAP_GATE16 = 7,
    TYPE_TSS32 = 9,
    TYPE_INTERRUPT_GATE32 = 14,
    TYPE_TRAP_GATE32 = 15
};
#define TYPE_TRAP 1u /* gates: a trap gate */
#define TYPE_BUSY 2u /* TSS: busy */
#define TYPE_32 8u   /* TSS and gates: the 386's form */

#define SELECTOR_RPL 3u
#define SELECTOR_TI 4u
#define SELECTOR_INDEX 0xfff8u
#define SELECTOR_ERROR 0xfffcu /* the part that goes into an error code */

#define DESC_ATTRIBUTES 0x00f0ff00u

/* attributes of the flat segments that SYSCALL and SYSENTER load */
#define FLAT_DATA (DESC_G | DESC_B | DESC_P | DESC_S | DESC_W | DESC_A)
#define FLAT_CODE32 (FLAT_DATA | DESC_CS)
#define FLAT_CODE64 (DESC_G | DESC_L | DESC_P | DESC_S | DESC_CS | DESC_R | DESC_A)
/* and of every segment in virtual-8086 mode (20.1.1) */
#define VM86_SEGMENT (DESC_P | 3u << DESC_DPL_SHIFT | DESC_S | DESC_W | DESC_A)

typedef struct {
    uint32_t low;
    uint32_t high;
} descriptor;

static inline unsigned descriptor_type(uint32_t high) { return (high & DESC_TYPE) >> 8; }
static inline unsigned descriptor_dpl(uint32_t high) { return high >> DESC_DPL_SHIFT & 3; }
static inline bool is_code(uint32_t high) { return high & DESC_S && high & DESC_CS; }
static inline bool is_writable_data(uint32_t high)
{
    return high & DESC_S && !(high & DESC_CS) && high & DESC_W;
}

uint32_t descriptor_base(descriptor descriptor);
uint32_t descriptor_limit(descriptor descriptor);

/* The segment cache that `descriptor` gives, loaded with `selector`. */
env_segment segment_from(uint32_t selector, descriptor descriptor);
/* A segment as real and virtual-8086 mode make them from the selector alone. */
env_segment segment_vm86(uint32_t selector);

static inline bool in_vm86(const cpu_env *env)
{
    return env->cr[0] & CR0_PE && env->eflags & FL_VM;
}

/* Recompute the parts of hflags that follow from CR0, CR4, EFER, RFLAGS and the segment caches. */
void env_update_hflags(cpu_env *env);

#endif
