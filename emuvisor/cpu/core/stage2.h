/* The second stage of address translation: guest frame number to host frame (what hardware calls EPT/NPT). */
#ifndef EMUVISOR_STAGE2_H
#define EMUVISOR_STAGE2_H

#include "frames.h"
#include "physical.h"

/* An entry: the state in bits 31..24, the host frame in bits 23..0. */
enum stage2_state {
    STAGE2_ABSENT,   /* RAM that was never touched */
    STAGE2_RESIDENT, /* has a frame of its own */
    STAGE2_SHARED,   /* has a frame that others have too: copy on write */
    STAGE2_ROM,      /* has a frame; writes go nowhere */
    STAGE2_HOLE      /* no memory: device or nothing */
    /* above: RAM without a frame, as STAGE2_ABSENT, or whose content is elsewhere; the fault handler brings it */
};
#define STAGE2_STATE(entry) ((entry) >> 24)
#define STAGE2_FRAME(entry) ((entry) & 0xffffffu)

typedef struct {
    uint64_t first; /* guest frame number */
    uint64_t count;
    uint32_t *entries;
    uint8_t *dirty;    /* one byte per frame while the dirty log is on, else NULL */
    uint8_t *accessed; /* the same while accesses are sampled: set when a frame is handed out */
    bool movable;      /* a device's: it shows only where no other slot has memory */
} memory_slot;

#define STAGE2_SLOTS 32 /* MAX_SLOTS in memory/slot.py */

typedef struct stage2 stage2;
struct stage2 {
    physical physical; /* first: the page walk and event delivery see only this */
    frames *frames;
    memory_slot slots[STAGE2_SLOTS];
    unsigned count;
    uint64_t epoch; /* grows when a translation that a TLB may hold was taken back */
    struct vcpu *loaded; /* the vCPU of this guest that an engine holds. One at a time: what another engine translates
                          * meanwhile would not hear of stores through the first one's TLB */
    /* Give guest frame `gfn` a frame (of its own, for a write). False: not possible now. */
    bool (*fault)(stage2 *memory, uint64_t gfn, bool write);
    uint64_t faults;
};

void stage2_init(stage2 *s, frames *f, bool (*fault)(stage2 *, uint64_t, bool));

/* The slot in which the guest sees `gfn`: RAM and ROM first, then the first movable one; NULL in a hole. */
static inline const memory_slot *stage2_slot(const stage2 *s, uint64_t gfn)
{
    const memory_slot *movable = NULL;
    for (unsigned i = 0; i < s->count; i++) {
        const memory_slot *slot = &s->slots[i];
        const uint64_t index = gfn - slot->first;
        if (index >= slot->count || STAGE2_STATE(slot->entries[index]) == STAGE2_HOLE)
            continue;
        if (!slot->movable)
            return slot;
        if (!movable)
            movable = slot;
    }
    return movable;
}

enum stage2_result {
    STAGE2_READWRITE, /* the frame may be read and written */
    STAGE2_READONLY,  /* the frame may be read; a write must ask again */
    STAGE2_DISCARD,   /* ROM: the frame may be read, writes go nowhere */
    STAGE2_NOTHING,   /* a hole */
    STAGE2_HOST       /* the host could not supply the frame */
};

/* Which frame holds guest frame `gfn`, after giving it one where needed. A write is noted in the dirty log, and where
 * accesses are sampled each one is. */
enum stage2_result stage2_translate(stage2 *s, uint64_t gfn, bool write, uint32_t *frame);

#endif
