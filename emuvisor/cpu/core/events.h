/* Delivery of exceptions and interrupts through the IVT or IDT (Intel SDM vol. 3, ch. 6 and 20). */
#ifndef EMUVISOR_EVENTS_H
#define EMUVISOR_EVENTS_H

#include "env.h"
#include "physical.h"

/* exceptions (Intel SDM vol. 3, table 6-1) */
enum {
    VECTOR_DE = 0,
    VECTOR_DB = 1,
    VECTOR_NMI = 2,
    VECTOR_BP = 3,
    VECTOR_OF = 4,
    VECTOR_BR = 5,
    VECTOR_UD = 6,
    VECTOR_NM = 7,
    VECTOR_DF = 8,
    VECTOR_TS = 10,
    VECTOR_NP = 11,
    VECTOR_SS = 12,
    VECTOR_GP = 13,
    VECTOR_PF = 14,
    VECTOR_MF = 16,
    VECTOR_AC = 17,
    VECTOR_XM = 19
};

enum event_kind {
    EVENT_INTERRUPT, /* external, maskable or NMI: no DPL check, return address is RIP, EXT set in nested errors */
    EVENT_EXCEPTION, /* fault, trap or abort found by the processor; no DPL check */
    EVENT_SOFTWARE,  /* INT n, INT3, INTO: gate DPL is checked; RIP is already behind the instruction
                        and is at `instruction` again when delivery faults */
    EVENT_ICEBP      /* INT1: a trap without DPL check */
};

typedef struct {
    uint8_t vector;
    enum event_kind kind;
    bool has_error_code;
    uint32_t error_code;
    uint64_t instruction; /* for EVENT_SOFTWARE: RIP of the INT itself */
} event;

enum deliver_result { DELIVERED, DELIVER_SHUTDOWN, DELIVER_HOST };

/* Deliver `event` by changing `env` and pushing to guest memory. A fault during delivery is delivered
 * in its place by the rules for contributory and page faults (double fault, triple fault = shutdown). CR2 is
 * set by page faults found on the way. On DELIVER_SHUTDOWN and DELIVER_HOST `env` is unchanged but for CR2.
 * `env->cc_op` must be CC_OP_EFLAGS. Delivery clears TF, RF, NT, VM, the interrupt shadow, and IF for
 * interrupt gates; sets old_exception to -1. */
enum deliver_result events_deliver(cpu_env *env, physical *memory, const event *event);

/* SYSCALL and SYSENTER (Intel SDM vol. 2): RIP is at the instruction, whose length is `length`. When the
 * instruction faults, the fault (#UD or #GP(0)) is delivered. */
enum deliver_result events_syscall(cpu_env *env, physical *memory, unsigned length);
enum deliver_result events_sysenter(cpu_env *env, physical *memory);

/* May the guest use `size` I/O ports from `port` (IOPL, TSS bitmap; real mode: always)? The TSS is read as an
 * implicit supervisor access. DELIVERED means that *allowed is set; when it is false, *fault is the
 * exception to deliver instead: #GP(0), or the page fault of reading the TSS with CR2 = *fault_address. */
enum deliver_result events_port_allowed(cpu_env *env, physical *memory, uint16_t port, unsigned size,
                                        bool *allowed, event *fault, uint64_t *fault_address);

#endif
