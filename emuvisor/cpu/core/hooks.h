/* Inside the core: what pcpu.c, run.c, translate.c, traps.c and io.c share. */
#ifndef EMUVISOR_HOOKS_H
#define EMUVISOR_HOOKS_H

#include "pcpu.h"

#define MMIO_BASE (1ull << 44) /* engine physical address of guest physical 0 as a device window */
#define MMIO_SIZE (1ull << 40)

/* translate.c */
void flush_tlb(pcpu *p);
void drop_stale(pcpu *p); /* translations that others made wrong; not while a block runs */
void on_stale(void *engine);
unicorn_fill translate_fast_fill;
bool on_tlb_fill(uc_engine *engine, uint64_t address, int type, uc_tlb_entry *entry, void *data);

/* traps.c */
void normalise_flags(pcpu *p); /* so that cc_op is CC_OP_EFLAGS */
void uncount(pcpu *p);         /* the last counted block was left at RIP: take off what did not run */
bool deliver(pcpu *p, const event *e); /* false: shut down, or to be repeated (vcpu.has_event) */
void on_interrupt(uc_engine *engine, uint32_t vector, void *data);
bool on_invalid_instruction(uc_engine *engine, void *data);
void on_syscall(uc_engine *engine, void *data);
void on_sysenter(uc_engine *engine, void *data);

/* io.c */
#define RDTSC_WORK 25 /* charged for RDTSC: 25 ns, about what it takes, for guests that wait by polling it */
void handler_done(pcpu *p, bool ok); /* after a callback of the owner's, inside a block */
uint32_t on_in(uc_engine *engine, uint32_t port, int size, void *data);
void on_out(uc_engine *engine, uint32_t port, int size, uint32_t value, void *data);
uint64_t on_mmio_read(uc_engine *engine, uint64_t gpa, unsigned size, void *data);
void on_mmio_write(uc_engine *engine, uint64_t gpa, unsigned size, uint64_t value, void *data);
int on_cpuid(uc_engine *engine, void *data);
int on_rdtsc(uc_engine *engine, void *data);
int on_rdtscp(uc_engine *engine, void *data);

/* run.c */
extern _Thread_local pcpu *pcpu_running; /* whose engine runs in this thread */
/* The pCPU whose state `env` is; NULL for an engine of somebody else in this process. */
static inline pcpu *pcpu_of(const cpu_env *env)
{
    return pcpu_running && pcpu_running->env == env ? pcpu_running : NULL;
}
void on_block(uc_engine *engine, uint64_t address, uint32_t size, void *data);

#endif
