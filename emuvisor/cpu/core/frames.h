/* The host's frame pool as the engines see it: one block of memory, and who has translated code from where. */
#ifndef EMUVISOR_FRAMES_H
#define EMUVISOR_FRAMES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define FRAMES_ENGINES 32 /* pCPUs per pool: one bit each in `fetched` */
#define FRAME_ONES 0u     /* a frame of ones: what a fetch from a hole finds */

/* Host physical bytes [start, end) whose translations an engine has to drop before it runs on. */
typedef struct {
    uint64_t start;
    uint64_t end;
} frame_range;

#define STALE_RANGES 256

typedef struct {
    frame_range ranges[STALE_RANGES];
    unsigned count; /* more than STALE_RANGES: too many to list, drop everything */
    void (*notify)(void *engine);
    void *engine;
} stale_list;

typedef struct {
    uint8_t *base;
    uint32_t count;
    uint32_t *fetched; /* per frame: bit e is set while engine e may hold translations of it */
    stale_list *engines[FRAMES_ENGINES];
    pthread_mutex_t lock;
} frames;

/* `length` bytes at `offset` of `frame` were changed, or the frame changed hands: every engine but
 * `except` (-1 for none) that has fetched from it must drop its translations before it next runs a block. */
void frames_changed(frames *f, uint32_t frame, unsigned offset, unsigned length, int except);

#endif
