/* A pCPU (one Unicorn engine) and the vCPUs that it loads. */
#ifndef EMUVISOR_PCPU_H
#define EMUVISOR_PCPU_H

#include "events.h"
#include "stage2.h"
#include "unicorn.h"

/* Why pcpu_run came back. */
enum exit_reason {
    EXIT_BUDGET,   /* the budget is spent */
    EXIT_HALT,     /* HLT, and no interrupt is deliverable */
    EXIT_PORT,     /* the handler of a port access asked to leave */
    EXIT_MMIO,     /* the handler of a memory-mapped access asked to leave */
    EXIT_SHUTDOWN, /* triple fault */
    EXIT_DEBUG,    /* a host breakpoint or watchpoint */
    EXIT_STOP,     /* somebody called stop */
    EXIT_MEMORY,   /* the host has no frame for the guest now */
    EXIT_ERROR,    /* the engine failed */
    EXIT_PAUSE,    /* a loop around PAUSE has lasted for the vCPU's window */
    EXIT_CALLBACK  /* a callback failed: the Python error is set */
};

/* What is counted. */
enum counter {
    COUNT_PORT_READ,
    COUNT_PORT_WRITE,
    COUNT_MMIO_READ,
    COUNT_MMIO_WRITE,
    COUNT_CPUID,
    COUNT_RDTSC,
    COUNT_HALT,
    COUNT_PAUSE,
    COUNT_EXCEPTION,
    COUNT_PAGE_FAULT,
    COUNT_SOFT_INTERRUPT,
    COUNT_INTERRUPT,
    COUNT_SYSCALL,
    COUNT_TLB_FILL,
    COUNT_TLB_FLUSH,
    COUNT_STALE,
    COUNT_SWITCH,
    COUNTERS
};
extern const char *const counter_names[COUNTERS];

typedef struct pcpu pcpu;
typedef struct vcpu vcpu;

/* What the owner of a vCPU answers. Called without any lock of the core. False: an error to leave with. */
typedef struct {
    bool (*port_read)(vcpu *, uint16_t port, unsigned size, uint32_t *value);
    bool (*port_write)(vcpu *, uint16_t port, unsigned size, uint32_t value);
    bool (*mmio_read)(vcpu *, uint64_t gpa, unsigned size, uint64_t *value);
    bool (*mmio_write)(vcpu *, uint64_t gpa, unsigned size, uint64_t value);
    bool (*cpuid)(vcpu *, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
    bool (*acknowledge)(vcpu *, int *vector); /* -1: the interrupt has gone */
    bool (*msr_read)(vcpu *, uint32_t index, uint64_t *value, bool *exists);
    bool (*msr_write)(vcpu *, uint32_t index, uint64_t value, bool *accepted);
    bool (*read_cr8)(vcpu *, uint64_t *value);
    bool (*write_cr8)(vcpu *, uint64_t value);
} vcpu_callbacks;

typedef struct {
    uint64_t address;
    uint64_t value;
    uint8_t size;
    bool write;
    bool mmio;
} io_access;

typedef struct {
    uint64_t gpa;
    uint64_t length;
    bool read;
    bool write;
} watchpoint;

typedef struct {
    bool valid;
    uint32_t leaf;
    uint32_t subleaf;
    uint32_t registers[4]; /* EAX, EBX, ECX, EDX */
} cpuid_answer;

#define CPUID_ANSWERS 32
#define BREAKPOINTS 32
#define WATCHPOINTS 8

struct vcpu {
    cpu_env env;  /* the state while no pCPU has it loaded */
    pcpu *loaded; /* the pCPU that has */
    stage2 *memory;
    const vcpu_callbacks *callbacks;

    uint64_t work;       /* bytes of guest code retired */
    uint64_t idle_ns;    /* guest time that passed while halted */
    uint64_t limit;      /* the block hook looks closer at work >= limit; 0 makes it look at once */
    uint64_t budget_end; /* the work at which run returns */
    int64_t tsc_origin;  /* host clock: CLOCK_MONOTONIC at guest time 0 */
    bool host_clock;     /* RDTSC follows the host's clock, not work + idle_ns */

    bool stop;      /* leave at the next block (any thread may set it through vcpu_attention) */
    bool interrupt; /* the level of the INTR pin */
    bool nmi;       /* an NMI edge waits */
    bool leave;     /* the handler of the access in progress wants run to return */
    bool halted;
    bool running;
    bool failed;    /* a callback failed */
    bool fpu_changed; /* the FPU control words were set from outside */
    bool spinning;  /* a loop around PAUSE has lasted for the window */
    bool has_event;
    event event;    /* delivery to be repeated */
    bool inside;    /* it was held up within a block, whose rest is to be run before anything else may happen: or where
                       a run ends, and an interrupt comes, would depend on what the host has of the guest's memory */
    uint64_t pause_window; /* bytes of code that a loop around PAUSE may run; 0: as long as it likes */
    uint64_t last_pause;   /* the work at the last PAUSE */
    uint64_t loop_start;   /* the work at the first one of its loop */
    io_access access;
    cpuid_answer cpuid[CPUID_ANSWERS]; /* the owner is asked once: its answers do not change */
    uint64_t counters[COUNTERS];
    char error[160];

    uint64_t breakpoints[BREAKPOINTS]; /* linear addresses */
    unsigned breakpoint_count;
    uint64_t stepping_off; /* the breakpoint that the vCPU stands on and may pass once */
    bool steps_off;
    watchpoint watchpoints[WATCHPOINTS];
    unsigned watchpoint_count;
    uint64_t stop_address; /* of the breakpoint or watched byte */
    uint64_t *trace;       /* ring of block addresses, or NULL */
    uint64_t trace_size;
    uint64_t trace_count;
};

/* A linear page, and the frame from which its code was last fetched. */
typedef struct {
    uint64_t page;
    uint32_t frame;
    bool valid;
} code_page;

#define CODE_PAGES 256 /* a power of two, at least two: a block lies in one page or in two neighbours */

#define REFUSED_UNDEFINED (UINT32_MAX - 1) /* the instruction does not exist (bit_test.h) */

struct pcpu {
    uc_engine *engine;
    cpu_env *env; /* the live state, inside the engine */
    frames *frames;
    unsigned index; /* its bit in frames->fetched */
    stale_list stale;
    vcpu *vcpu;     /* whose state is loaded */
    uint64_t epoch; /* of the loaded vCPU's memory when the TLB was last flushed */

    uint64_t block_start; /* linear addresses of the block that was counted last */
    uint64_t block_end;
    void *cpu;     /* the engine's CPUState, which env is a part of; NULL until seen */
    enum { MODE_UNKNOWN, MODE_USER, MODE_SUPERVISOR } mode; /* of the access being translated */
    bool stopping; /* the block hook ended emulation */
    bool dropping; /* translations are being dropped: translate identically */
    bool shutdown;
    bool moved;    /* a handler changed where pages lie: leave before the next block */
    bool starved;  /* the host had no frame for a system call; it will be executed again */
    bool debug;
    struct {
        bool valid;
        bool host;
        bool fetch;
        bool again; /* nothing is wrong: execute the instruction once more */
        uint64_t page;
        uint32_t error_code; /* of the page fault, WALK_NONCANONICAL or REFUSED_UNDEFINED */
    } refused;
    code_page code[CODE_PAGES];
    bool has_forced; /* deliver `forced` in place of the instruction that was left */
    event forced;
    bool watching; /* memory hooks are installed */
    uc_hook watch_hooks[2];
    uc_hook break_hooks[BREAKPOINTS];
    uint64_t break_addresses[BREAKPOINTS];
    unsigned break_count;
};

/* Open an engine over `f`. NULL on success, else a message. */
const char *pcpu_open(pcpu *p, frames *f, int cpu_model);
void pcpu_close(pcpu *p);

/* Make `v` the vCPU that `p` holds. Under the GIL: it, or a sibling of its guest, may have to be taken from another
 * pCPU. */
void pcpu_load(pcpu *p, vcpu *v);
/* Run the loaded vCPU until an exit, for at most `budget` bytes of code. Without the GIL, one thread per pCPU. */
enum exit_reason pcpu_run(pcpu *p, uint64_t budget);

/* Copy the live state of `v` back into v->env, and let go of the pCPU. Not while it runs. */
void vcpu_unload(vcpu *v);
/* Copy the live state of `v` into v->env; it stays loaded. */
void vcpu_sync(vcpu *v);
/* Something changed that the block hook must look at. Any thread. */
static inline void vcpu_attention(vcpu *v) { __atomic_store_n(&v->limit, 0, __ATOMIC_RELEASE); }
/* Would it run: is it not halted, or is there something to deliver that wakes it? Not while it runs. */
bool vcpu_ready(const vcpu *v);
/* The guest's time stamp counter: guest time in ns, plus what the guest has added. */
uint64_t vcpu_tsc(const vcpu *v);

#endif
