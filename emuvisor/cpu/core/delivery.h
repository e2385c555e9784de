/* What the parts of event delivery share: one attempt to deliver one event. */
#ifndef EMUVISOR_DELIVERY_H
#define EMUVISOR_DELIVERY_H

#include "events.h"
#include "paging.h"
#include "segments.h"

#include <string.h>

/* selector error code (Intel SDM vol. 3, 6.13); ERROR_IDT: the rest is a vector */
#define ERROR_EXT 1u
#define ERROR_IDT 2u

/* The part of cpu_env that delivery changes (and DR7, which a committed task switch changes). */
#define CHANGED_BYTES offsetof(cpu_env, efer)

/* How one step ended. On STEP_FAULT the delivery's `fault` says with what. */
enum step { STEP_OK, STEP_FAULT, STEP_HOST };

/* Go on only when a step went well. */
#define TRY(attempt)                                                                                           \
    do {                                                                                                       \
        enum step result_ = (attempt);                                                                         \
        if (result_ != STEP_OK)                                                                                \
            return result_;                                                                                    \
    } while (0)

/* Four events at most come after each other (an interrupt, a contributory fault, a page fault, #DF), and none
 * stores more than a task switch does: 17 words, a busy bit, 6 accessed bits, an error code; words lie in two
 * pieces at most. */
#define STORES_MAX 256

typedef struct {
    cpu_env *env;
    physical *memory;
    const event *event;
    uint32_t ext;  /* ERROR_EXT unless the event is a software interrupt */
    event fault;   /* raised while `event` was being delivered */
    uint64_t cr2;  /* of that fault, when it is a page fault */
    uint8_t checkpoint[CHANGED_BYTES]; /* what a fault goes back to */
    bool switched; /* a task switch has been committed: the checkpoint is the new task */
    /* What the stores to guest memory have replaced, for a host exit to undo them: the next try must find
     * the memory that this one found. */
    struct {
        uint64_t gpa;
        uint8_t old[8];
        unsigned size;
    } stores[STORES_MAX];
    unsigned store_count;
} delivery;

/* delivery.c */
enum step raise_fault(delivery *d, uint8_t vector, uint32_t error_code);
/* Translate one byte's address; an `access` of delivery is always implicit unless it is a user one. */
enum step translate(delivery *d, uint64_t address, unsigned access, uint64_t *gpa);
/* Read system data (descriptors, TSS, IVT) as an implicit supervisor access. */
enum step read_system(delivery *d, uint64_t address, void *data, unsigned size);
/* Are `size` bytes from `address` writable system data? Translates each page. */
enum step probe_system(delivery *d, uint64_t address, unsigned size);
enum step write_system(delivery *d, uint64_t address, const void *data, unsigned size);
/* Put back what all stores since the beginning have replaced. */
void undo_stores(delivery *d);

/* Where the descriptor of `selector` lies. False: outside of its table. */
bool descriptor_address(const cpu_env *env, uint16_t selector, uint64_t *address);
enum step read_descriptor(delivery *d, uint64_t address, descriptor *descriptor);
/* Set the accessed bit in memory and in `descriptor`, unless it is set. */
enum step set_accessed(delivery *d, uint64_t address, descriptor *descriptor);

/* the access byte of a descriptor: type, S, DPL, P */
#define DESCRIPTOR_ACCESS_BYTE 5u
/* VM86: GS FS DS ES SS ESP EFLAGS CS EIP and an error code */
#define FRAME_WORDS 10

/* A stack that words are about to be pushed on, and the words in the order of pushing. */
typedef struct {
    const env_segment *segment; /* NULL: 64-bit, no limits */
    uint64_t pointer;
    unsigned access; /* ACCESS_WRITE, with ACCESS_USER or ACCESS_IMPLICIT */
    unsigned size;   /* bytes a word: 2, 4 or 8 */
    unsigned count;
    uint64_t words[FRAME_WORDS];
} frame;

static inline void frame_add(frame *frame, uint64_t word) { frame->words[frame->count++] = word; }
static inline unsigned stack_access(unsigned cpl)
{
    return ACCESS_WRITE | (cpl == 3 ? (unsigned)ACCESS_USER : (unsigned)ACCESS_IMPLICIT);
}
/* Do all words fit within the segment's limit? */
bool frame_fits(const frame *frame);
/* Write the words, after translating all of them; `pointer` is then the new stack pointer. */
enum step frame_push(delivery *d, frame *frame);

/* RFLAGS as saved for the handler: RF is set for faults (Intel SDM vol. 3, 17.3.1.1). */
uint64_t saved_flags(const delivery *d);
void clear_flags(cpu_env *env, uint64_t flags);
/* #GP(0) of INT n at IOPL < 3 in virtual-8086 mode, or its redirection; *done: delivered. */
enum step deliver_vm86_software(delivery *d, bool *done);

enum step deliver_real(delivery *d);
enum step deliver_protected(delivery *d);
enum step deliver_long(delivery *d);
enum step deliver_task(delivery *d, uint16_t selector);
/* Look up and check a gate's code segment: what protected and long mode have in common. */
enum step load_handler(delivery *d, uint16_t selector, descriptor *code, uint64_t *address);

#endif
