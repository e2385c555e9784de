/* Guest physical memory as one array from GPA 0, for tests: holes beyond it. */
#ifndef EMUVISOR_FLAT_H
#define EMUVISOR_FLAT_H

#include "paging.h"

#include <string.h>

typedef struct {
    physical physical; /* the first member, so that a physical * is a flat_memory * */
    uint8_t *bytes;
    uint64_t size;
    int64_t accesses_left; /* then the host refuses one; negative: it never does */
} flat_memory;

static inline enum physical_result flat_count(flat_memory *flat)
{
    if (flat->accesses_left < 0)
        return PHYSICAL_OK;
    return flat->accesses_left-- == 0 ? PHYSICAL_HOST : PHYSICAL_OK;
}

static inline enum physical_result flat_read(physical *memory, uint64_t gpa, void *data, unsigned size)
{
    flat_memory *flat = (flat_memory *)memory;
    uint8_t *to = data;
    for (unsigned i = 0; i < size; i++)
        to[i] = gpa + i < flat->size ? flat->bytes[gpa + i] : UINT8_MAX;
    return flat_count(flat);
}

static inline enum physical_result flat_write(physical *memory, uint64_t gpa, const void *data, unsigned size)
{
    flat_memory *flat = (flat_memory *)memory;
    const uint8_t *from = data;
    if (flat_count(flat) == PHYSICAL_HOST)
        return PHYSICAL_HOST;
    for (unsigned i = 0; i < size; i++)
        if (gpa + i < flat->size)
            flat->bytes[gpa + i] = from[i];
    return PHYSICAL_OK;
}

static inline const uint8_t *flat_host(physical *memory, uint64_t gpa)
{
    const flat_memory *flat = (const flat_memory *)memory;
    bool whole_page = (gpa & PAGE_MASK) + PAGE_SIZE <= flat->size;
    return whole_page && flat->accesses_left < 0 ? flat->bytes + gpa : NULL;
}

static inline flat_memory flat_open(void *bytes, uint64_t size, int64_t accesses)
{
    return (flat_memory){.physical = {.read = flat_read, .write = flat_write, .host = flat_host},
                         .bytes = bytes,
                         .size = size,
                         .accesses_left = accesses};
}

#endif
