/* Random page walks and event deliveries, for the sanitizers: harness SEED COUNT. */
#include "events.h"
#include "flat.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MEMORY_SIZE (16 * PAGE_SIZE - 24) /* the last page is partly a hole */

/* xorshift64* */
static uint64_t random_state;

static uint64_t random_bits(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(0x2545f4914f6cdd1d);
}

static uint64_t below(uint64_t bound) { return (random_bits() >> 16) % bound; }
static bool once_in(uint64_t n) { return below(n) == 0; }

/* An address that is likely to mean something: inside memory, at an edge, or anything. */
static uint64_t random_address(void)
{
    static const uint64_t edges[] = {0, UINT32_MAX, UINT64_C(1) << 47, UINT64_MAX, MEMORY_SIZE};
    if (once_in(16))
        return random_bits();
    if (once_in(8))
        return edges[below(sizeof edges / sizeof *edges)] - below(16);
    return below(MEMORY_SIZE);
}

static void store(uint8_t *memory, uint64_t at, uint64_t value)
{
    memcpy(memory + at, &value, sizeof value);
}

/* Descriptors and gates in the lower half: mostly present, of known types, with small selectors. In the upper half
 * paging entries. */
static void fill(uint8_t *memory)
{
    static const uint8_t types[] = {0x9b, 0x93, 0xfb, 0xf3, 0x9f, 0x89, 0x81, 0x82, 0x85, 0x8e, 0x8f, 0x86, 0xee, 0xe5};
    uint64_t half = MEMORY_SIZE / 2 & ~UINT64_C(7);
    for (uint64_t at = 0; at < half; at += 8) {
        uint64_t entry = random_bits() & UINT64_C(0x00f01fff0000ffff);
        entry |= (uint64_t)types[below(sizeof types)] << 40 | below(64) << 16;
        store(memory, at, once_in(8) ? random_bits() : entry);
    }
    for (uint64_t at = half; at + 8 <= MEMORY_SIZE; at += 8) {
        uint64_t entry = below(16) * PAGE_SIZE | (random_bits() & 0xe6) | 1;
        store(memory, at, once_in(16) ? random_bits() : entry & ~(once_in(4) ? 0 : UINT64_C(0x80)));
    }
}

static env_segment random_segment(void)
{
    return (env_segment){.selector = (uint32_t)below(0x200),
                         .base = random_address(),
                         .limit = (uint32_t)(once_in(4) ? random_address() : UINT32_MAX),
                         .flags = (uint32_t)random_bits() & 0xf0ff00};
}

static void randomize(cpu_env *env)
{
    static const uint32_t modes[] = {0, CR0_PE, CR0_PE, CR0_PE | CR0_PG, CR0_PE | CR0_PG};
    memset(env, 0, sizeof *env);
    for (unsigned i = 0; i < 16; i++)
        env->regs[i] = random_address();
    for (unsigned i = 0; i < 6; i++)
        env->segs[i] = random_segment();
    env->ldt = random_segment();
    env->tr = random_segment();
    env->gdt = random_segment();
    env->idt = random_segment();
    env->gdt.base = below(PAGE_SIZE);
    env->idt.base = below(PAGE_SIZE);
    env->rip = random_address();
    env->cr[0] = modes[below(sizeof modes / sizeof *modes)] | (random_bits() & CR0_WP);
    env->cr[3] = below(16) * PAGE_SIZE;
    env->cr[4] = random_bits() & (CR4_VME | CR4_PSE | CR4_PAE | CR4_SMEP | CR4_SMAP);
    env->efer = random_bits() & (EFER_SCE | EFER_NXE);
    if (env->cr[0] & CR0_PG && once_in(2)) {
        env->cr[4] |= CR4_PAE;
        env->efer |= EFER_LME | EFER_LMA;
    }
    env->a20_mask = once_in(8) ? ~(1 << 20) : -1;
    env->sysenter_cs = (uint32_t)below(16);
    env->star = random_bits();
    env->hflags = (uint32_t)below(4);
    env_set_rflags(env, random_bits() & (once_in(8) ? 0x3f7fd5 : 0x1d7fd5));
}

static event random_event(void)
{
    return (event){.vector = (uint8_t)(once_in(4) ? below(256) : below(32)),
                   .kind = (enum event_kind)below(4),
                   .has_error_code = once_in(2),
                   .error_code = (uint32_t)random_bits(),
                   .instruction = random_address()};
}

static int run(cpu_env *env, physical *memory)
{
    event event = random_event();
    uint64_t address;
    bool allowed;
    walk walk;
    switch (below(8)) {
    case 0:
        return (int)events_syscall(env, memory, 2);
    case 1:
        return (int)events_sysenter(env, memory);
    case 2:
        return (int)events_port_allowed(env, memory, (uint16_t)random_bits(), 1u << below(3), &allowed, &event,
                                        &address);
    case 3:
    case 4:
        return (int)paging_walk(env, memory, random_address(), 1u << below(3) | (unsigned)below(4) << 3, &walk);
    default:
        return (int)events_deliver(env, memory, &event);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s SEED COUNT\n", argv[0]);
        return 2;
    }
    random_state = strtoull(argv[1], NULL, 10) | 1;
    uint64_t count = strtoull(argv[2], NULL, 10), outcomes[3] = {0};
    uint8_t *memory = malloc(MEMORY_SIZE); /* its end is one that AddressSanitizer knows */
    if (!memory)
        return 1;
    cpu_env env;
    for (uint64_t i = 0; i < count; i++) {
        if (i % 64 == 0)
            fill(memory);
        randomize(&env);
        flat_memory flat = flat_open(memory, MEMORY_SIZE, once_in(4) ? (int64_t)below(12) : -1);
        outcomes[run(&env, &flat.physical)]++;
    }
    free(memory);
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", outcomes[0], outcomes[1], outcomes[2]);
    return 0;
}
