#include "frames.h"

#include "paging.h"

void frames_changed(frames *f, uint32_t frame, unsigned offset, unsigned length, int except)
{
    uint32_t mask = __atomic_load_n(&f->fetched[frame], __ATOMIC_ACQUIRE);
    if (except >= 0)
        mask &= ~(1u << except);
    if (!mask)
        return;
    pthread_mutex_lock(&f->lock);
    for (unsigned e = 0; e < FRAMES_ENGINES; e++) {
        stale_list *list = f->engines[e];
        if (!(mask >> e & 1) || !list)
            continue;
        if (list->count < STALE_RANGES) {
            const uint64_t start = (uint64_t)frame * PAGE_SIZE + offset;
            list->ranges[list->count] = (frame_range){start, start + length};
        }
        list->count++;
        if (list->count > STALE_RANGES)
            list->count = STALE_RANGES + 1;
        list->notify(list->engine);
    }
    pthread_mutex_unlock(&f->lock);
}
