#include "delivery.h"

#define BUS_WORD 8u /* the most that one call of physical.read or write moves */

enum step raise_fault(delivery *d, uint8_t vector, uint32_t error_code)
{
    d->fault = (event){.vector = vector,
                       .kind = EVENT_EXCEPTION,
                       .has_error_code = vector == VECTOR_DF || (vector >= VECTOR_TS && vector <= VECTOR_PF),
                       .error_code = error_code};
    return STEP_FAULT;
}

enum step translate(delivery *d, uint64_t address, unsigned access, uint64_t *gpa)
{
    walk walk;
    switch (paging_walk(d->env, d->memory, address, access, &walk)) {
    case WALK_OK:
        *gpa = walk.gpa;
        return STEP_OK;
    case WALK_FAULT:
        if (walk.error_code == WALK_NONCANONICAL)
            return raise_fault(d, VECTOR_GP, 0);
        d->cr2 = d->env->efer & EFER_LMA ? address : (uint32_t)address;
        return raise_fault(d, VECTOR_PF, walk.error_code);
    case WALK_HOST:
        break;
    }
    return STEP_HOST;
}

static unsigned bytes_left_in_page(uint64_t address) { return (unsigned)(PAGE_SIZE - (address & ~PAGE_MASK)); }

enum step read_system(delivery *d, uint64_t address, void *data, unsigned size)
{
    uint8_t *to = data;
    while (size) {
        unsigned in_page = bytes_left_in_page(address);
        uint64_t gpa;
        TRY(translate(d, address, ACCESS_READ | ACCESS_IMPLICIT, &gpa));
        for (in_page = in_page < size ? in_page : size; in_page;) {
            unsigned part = in_page < BUS_WORD ? in_page : BUS_WORD;
            if (physical_read(d->memory, gpa, to, part) != PHYSICAL_OK)
                return STEP_HOST;
            to += part, gpa += part, address += part, size -= part, in_page -= part;
        }
    }
    return STEP_OK;
}

enum step probe_system(delivery *d, uint64_t address, unsigned size)
{
    uint64_t gpa;
    for (unsigned in_page; size; address += in_page, size -= in_page) {
        in_page = bytes_left_in_page(address);
        in_page = in_page < size ? in_page : size;
        TRY(translate(d, address, ACCESS_WRITE | ACCESS_IMPLICIT, &gpa));
    }
    return STEP_OK;
}

/* Every store of delivery goes through here. */
static enum step store(delivery *d, uint64_t gpa, const void *data, unsigned size)
{
    unsigned i = d->store_count;
    assert(i < STORES_MAX && size <= sizeof d->stores[i].old);
    if (physical_read(d->memory, gpa, d->stores[i].old, size) != PHYSICAL_OK ||
        d->memory->write(d->memory, gpa, data, size) != PHYSICAL_OK)
        return STEP_HOST;
    d->stores[i].gpa = gpa;
    d->stores[i].size = size;
    d->store_count++;
    return STEP_OK;
}

void undo_stores(delivery *d)
{
    while (d->store_count) {
        unsigned i = --d->store_count;
        /* it has just been written, so the host has it */
        d->memory->write(d->memory, d->stores[i].gpa, d->stores[i].old, d->stores[i].size);
    }
}

enum step write_system(delivery *d, uint64_t address, const void *data, unsigned size)
{
    const uint8_t *from = data;
    for (unsigned part; size; from += part, address += part, size -= part) {
        part = bytes_left_in_page(address);
        part = part < size ? part : size;
        uint64_t gpa;
        TRY(translate(d, address, ACCESS_WRITE | ACCESS_IMPLICIT, &gpa));
        TRY(store(d, gpa, from, part));
    }
    return STEP_OK;
}

bool descriptor_address(const cpu_env *env, uint16_t selector, uint64_t *address)
{
    const env_segment *table = selector & SELECTOR_TI ? &env->ldt : &env->gdt;
    uint32_t offset = selector & SELECTOR_INDEX;
    *address = table->base + offset;
    return offset + sizeof(descriptor) - 1 <= table->limit;
}

enum step read_descriptor(delivery *d, uint64_t address, descriptor *descriptor)
{
    return read_system(d, address, descriptor, sizeof *descriptor);
}

enum step set_accessed(delivery *d, uint64_t address, descriptor *descriptor)
{
    if (descriptor->high & DESC_A)
        return STEP_OK;
    descriptor->high |= DESC_A;
    uint8_t access_byte = (uint8_t)(descriptor->high >> 8);
    return write_system(d, address + DESCRIPTOR_ACCESS_BYTE, &access_byte, sizeof access_byte);
}

static uint64_t offset_mask(const frame *frame)
{
    if (!frame->segment)
        return UINT64_MAX;
    return frame->segment->flags & DESC_B ? UINT32_MAX : UINT16_MAX;
}

bool frame_fits(const frame *frame)
{
    uint64_t mask = offset_mask(frame), limit = frame->segment->limit, last = frame->size - 1;
    for (unsigned i = 1; i <= frame->count; i++) {
        uint64_t offset = (frame->pointer - i * frame->size) & mask;
        bool inside = frame->segment->flags & DESC_E ? offset > limit && offset + last <= mask
                                                     : offset + last <= limit;
        if (!inside)
            return false;
    }
    return true;
}

/* Where a word lies in physical memory: in one piece or, across a page boundary, in two. */
typedef struct {
    uint64_t gpa[2];
    unsigned first_size;
} place;

static enum step place_word(delivery *d, const frame *frame, uint64_t linear, place *place)
{
    unsigned in_page = bytes_left_in_page(linear);
    place->first_size = frame->size;
    TRY(translate(d, linear, frame->access, &place->gpa[0]));
    if (in_page >= frame->size)
        return STEP_OK;
    place->first_size = in_page;
    return translate(d, linear + in_page, frame->access, &place->gpa[1]);
}

static enum step write_word(delivery *d, const frame *frame, uint64_t word, const place *place)
{
    uint8_t bytes[sizeof word];
    memcpy(bytes, &word, sizeof bytes);
    TRY(store(d, place->gpa[0], bytes, place->first_size));
    unsigned rest = frame->size - place->first_size;
    return rest ? store(d, place->gpa[1], bytes + place->first_size, rest) : STEP_OK;
}

enum step frame_push(delivery *d, frame *frame)
{
    uint64_t mask = offset_mask(frame), base = frame->segment ? frame->segment->base : 0;
    uint64_t pointer = frame->pointer, walked_page = 1, walked_gpa = 0; /* 1 is no page */
    place places[FRAME_WORDS];
    for (unsigned i = 0; i < frame->count; i++) {
        uint64_t offset = (pointer - frame->size) & mask, linear = base + offset;
        pointer = (pointer & ~mask) | offset;
        if ((linear & PAGE_MASK) == walked_page && bytes_left_in_page(linear) >= frame->size) {
            places[i] = (place){.gpa = {walked_gpa | (linear & ~PAGE_MASK)}, .first_size = frame->size};
            continue;
        }
        TRY(place_word(d, frame, linear, &places[i]));
        walked_page = linear & PAGE_MASK;
        walked_gpa = places[i].gpa[0] & PAGE_MASK;
    }
    for (unsigned i = 0; i < frame->count; i++)
        TRY(write_word(d, frame, frame->words[i], &places[i]));
    frame->pointer = pointer;
    return STEP_OK;
}

uint64_t saved_flags(const delivery *d)
{
    const uint32_t faults = 1u << VECTOR_DE | 1u << VECTOR_BR | 1u << VECTOR_UD | 1u << VECTOR_NM |
                            1u << VECTOR_TS | 1u << VECTOR_NP | 1u << VECTOR_SS | 1u << VECTOR_GP |
                            1u << VECTOR_PF | 1u << VECTOR_MF | 1u << VECTOR_AC | 1u << VECTOR_XM;
    uint8_t vector = d->event->vector;
    bool fault = d->event->kind == EVENT_EXCEPTION && vector < 32 && faults >> vector & 1;
    return env_rflags(d->env) | (fault ? FL_RF : 0);
}

void clear_flags(cpu_env *env, uint64_t flags) { env_set_rflags(env, env_rflags(env) & ~flags); }

enum step load_handler(delivery *d, uint16_t selector, descriptor *code, uint64_t *address)
{
    uint32_t error_code = (selector & SELECTOR_ERROR) | d->ext;
    if (!(selector & SELECTOR_ERROR))
        return raise_fault(d, VECTOR_GP, d->ext);
    if (!descriptor_address(d->env, selector, address))
        return raise_fault(d, VECTOR_GP, error_code);
    TRY(read_descriptor(d, *address, code));
    if (!is_code(code->high) || descriptor_dpl(code->high) > env_cpl(d->env))
        return raise_fault(d, VECTOR_GP, error_code);
    if (!(code->high & DESC_P))
        return raise_fault(d, VECTOR_NP, error_code);
    return STEP_OK;
}
