#include "stage2.h"

#include <string.h>

#include "paging.h"

static void note_access(const memory_slot *slot, uint64_t index)
{
    if (slot->accessed)
        slot->accessed[index] = 1;
}

enum stage2_result stage2_translate(stage2 *s, uint64_t gfn, bool write, uint32_t *frame)
{
    const memory_slot *slot = stage2_slot(s, gfn);
    if (!slot)
        return STAGE2_NOTHING;
    const uint64_t index = gfn - slot->first;
    for (;;) {
        const uint32_t entry = slot->entries[index];
        *frame = STAGE2_FRAME(entry);
        switch (STAGE2_STATE(entry)) {
        case STAGE2_RESIDENT:
            note_access(slot, index);
            if (!slot->dirty)
                return STAGE2_READWRITE;
            if (write)
                slot->dirty[index] = 1;
            return slot->dirty[index] ? STAGE2_READWRITE : STAGE2_READONLY;
        case STAGE2_SHARED:
            if (write)
                break;
            note_access(slot, index);
            return STAGE2_READONLY;
        case STAGE2_ROM: note_access(slot, index); return STAGE2_DISCARD;
        case STAGE2_HOLE: return STAGE2_NOTHING;
        default: break;
        }
        s->faults++;
        if (!s->fault(s, gfn, write))
            return STAGE2_HOST;
    }
}

static enum physical_result read_memory(physical *memory, uint64_t gpa, void *data, unsigned size)
{
    stage2 *s = (stage2 *)memory;
    uint32_t frame;
    switch (stage2_translate(s, gpa / PAGE_SIZE, false, &frame)) {
    case STAGE2_HOST: return PHYSICAL_HOST;
    case STAGE2_NOTHING: memset(data, 0xff, size); return PHYSICAL_OK;
    default: memcpy(data, s->frames->base + (uint64_t)frame * PAGE_SIZE + gpa % PAGE_SIZE, size); return PHYSICAL_OK;
    }
}

static enum physical_result write_memory(physical *memory, uint64_t gpa, const void *data, unsigned size)
{
    stage2 *s = (stage2 *)memory;
    uint32_t frame;
    const unsigned offset = gpa % PAGE_SIZE;
    switch (stage2_translate(s, gpa / PAGE_SIZE, true, &frame)) {
    case STAGE2_HOST: return PHYSICAL_HOST;
    case STAGE2_READWRITE:
        memcpy(s->frames->base + (uint64_t)frame * PAGE_SIZE + offset, data, size);
        frames_changed(s->frames, frame, offset, size, -1);
        return PHYSICAL_OK;
    default: return PHYSICAL_OK;
    }
}

static const uint8_t *host_page(physical *memory, uint64_t gpa)
{
    stage2 *s = (stage2 *)memory;
    const memory_slot *slot = stage2_slot(s, gpa / PAGE_SIZE);
    if (!slot)
        return NULL;
    const uint32_t entry = slot->entries[gpa / PAGE_SIZE - slot->first];
    const unsigned state = STAGE2_STATE(entry);
    if (state != STAGE2_RESIDENT && state != STAGE2_SHARED)
        return NULL;
    note_access(slot, gpa / PAGE_SIZE - slot->first);
    return s->frames->base + (uint64_t)STAGE2_FRAME(entry) * PAGE_SIZE + gpa % PAGE_SIZE;
}

void stage2_init(stage2 *s, frames *f, bool (*fault)(stage2 *, uint64_t, bool))
{
    memset(s, 0, sizeof *s);
    s->physical.read = read_memory;
    s->physical.write = write_memory;
    s->physical.host = host_page;
    s->frames = f;
    s->fault = fault;
    s->loaded = NULL;
}
