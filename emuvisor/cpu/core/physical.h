/* Guest physical memory as the page walk and event delivery use it. */
#ifndef EMUVISOR_PHYSICAL_H
#define EMUVISOR_PHYSICAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The host could not supply the memory (no frame left, a frame still elsewhere): leave the guest
 * unchanged, exit, and try again later. */
enum physical_result { PHYSICAL_OK, PHYSICAL_HOST };

typedef struct physical physical;
struct physical {
    /* Read or write `size` bytes (1..8), inside one page, at `gpa`. Holes read as ones; writes to holes
     * and ROM go nowhere. */
    enum physical_result (*read)(physical *memory, uint64_t gpa, void *data, unsigned size);
    enum physical_result (*write)(physical *memory, uint64_t gpa, const void *data, unsigned size);
    /* Fast reads: where the byte at `gpa` lies in host memory, readable to the end of its page until the
     * next call of any of the three; NULL where only `read` can tell. Never written through, so that shared frames
     * and the dirty log need no care. The member may be NULL. */
    const uint8_t *(*host)(physical *memory, uint64_t gpa);
};

/* Read by the fastest way; `size` and `gpa` as for `read`. */
static inline enum physical_result physical_read(physical *memory, uint64_t gpa, void *data, unsigned size)
{
    const uint8_t *host = memory->host ? memory->host(memory, gpa) : NULL;
    if (!host)
        return memory->read(memory, gpa, data, size);
    memcpy(data, host, size);
    return PHYSICAL_OK;
}

#endif
