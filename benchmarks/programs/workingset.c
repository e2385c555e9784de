/* A guest with nothing but memory, as a bare program in long mode on the board microvm: most of the time it reads a few of
 * its pages, now and then any of them.
 *
 * It grows at first, by a page for each 128 visits, until it has all of its pages. What is in a page goes by its number
 * modulo 20:
 *
 *     0..3    zeros
 *     4..7    the same in each guest; compresses to a third     (files that all have)
 *     8..14   its own; compresses to a third; written when visited      (data)
 *     15..19  its own; random                                  (files packed already)
 *
 * It visits one page in 32 anywhere, the others in the first quarter, the hot one. A visit reads all of the page, and makes
 * sure that it holds what was put there; one to data also writes a word.
 *
 * When the host asks by the virtio balloon, it gives pages outside the hot quarter: all but data, which can be made again
 * as those of files can, and are when they are next visited. What it cannot do without it does not give, as Linux. */
#include <stdint.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
#define DATA_ADDRESS 0x140000
#define MAX_PAGES 65536
#define HOT_PART 4
#define COLD_VISITS 32
#define GROW_TURNS 4   /* of COLD_VISITS visits */
#define METER_TURNS 64
#define BALLOON_TURNS 64

enum { METER_VISITS = 0xED0, METER_WRONG = 0xED4, METER_FILLED = 0xED8 }; /* ports */
enum kind { ZERO, EQUAL, DATA, RANDOM };
enum place { HERE, BALLOONED, FREE };

/* The image begins with a jump, and at byte 16 what the benchmark chooses. */
__asm__(".section .entry, \"ax\"\n"
        "    mov $0x13fff0, %esp\n"
        "    jmp begin\n"
        "    .balign 16\n"
        "parameters: .quad 0, 0\n"
        ".text\n");
extern struct {
    uint64_t pages, guest;
} parameters;

static uint8_t place[MAX_PAGES];
static uint64_t (*const memory)[WORDS] = (void *)DATA_ADDRESS;

static void out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "d"(port) : "memory");
}

/* Xorshift (Marsaglia 2003). */
static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* The first words decide: the remainder is tossed by multiplication, not by division. */
static uint32_t below(uint64_t *state, uint32_t limit)
{
    return (next(state) >> 32) * limit >> 32;
}

static enum kind kind_of(uint32_t page)
{
    const uint32_t rest = page % 20;
    return rest < 4 ? ZERO : rest < 8 ? EQUAL : rest < 15 ? DATA : RANDOM;
}

static uint64_t seed_of(uint32_t page)
{
    const uint64_t guest = kind_of(page) == EQUAL ? 0 : parameters.guest + 1;
    return (guest << 32 | (page + 1)) * 0x9E3779B97F4A7C15;
}

/* Word 0 is left to be counted in. */
static void make(uint32_t page)
{
    volatile uint64_t *const words = memory[page];
    const enum kind kind = kind_of(page);
    uint64_t state = seed_of(page);
    words[0] = 0;
    if (kind == ZERO)
        return;
    const unsigned random = kind == RANDOM ? WORDS : WORDS / 4;
    for (unsigned i = 1; i < random; i++)
        words[i] = next(&state);
    for (unsigned i = random; i < WORDS; i += 8) {
        const unsigned from = (next(&state) >> 40) % (random / 8) * 8;
        for (unsigned j = 0; j < 8; j++)
            words[i + j] = words[from + j];
    }
}

/* ---- the balloon: virtio 1.2, sections 4.2 and 5.5, one request at a time ---- */

#define DEVICE 0xFEB00000
enum {
    DEVICE_ID = 0x08, DRIVER_FEATURES = 0x20, DRIVER_FEATURES_SEL = 0x24, QUEUE_SEL = 0x30, QUEUE_NUM = 0x38,
    QUEUE_READY = 0x44, QUEUE_NOTIFY = 0x50, STATUS = 0x70, QUEUE_DESC = 0x80, QUEUE_DRIVER = 0x90,
    QUEUE_DEVICE = 0xA0, CONFIG_PAGES = 0x100, CONFIG_ACTUAL = 0x104
};
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };
enum { BALLOON = 5, QUEUE_SIZE = 8, REQUEST_PAGES = 256 };

static struct queue {
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptors[QUEUE_SIZE] __attribute__((aligned(16)));
    struct {
        uint16_t flags, index, ring[QUEUE_SIZE];
    } available;
    struct {
        uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[QUEUE_SIZE];
    } used __attribute__((aligned(4)));
    uint32_t pages[REQUEST_PAGES];
    unsigned count;
} queues[2];
enum { INFLATE, DEFLATE };

static uint32_t ballooned, hand;
static uint8_t has_balloon;

static volatile uint32_t *device(unsigned offset)
{
    return (volatile uint32_t *)(uintptr_t)(DEVICE + offset);
}

static void start_balloon(void)
{
    if (*device(DEVICE_ID) != BALLOON)
        return;
    has_balloon = 1;
    *device(STATUS) = ACKNOWLEDGE | DRIVER;
    *device(DRIVER_FEATURES_SEL) = 1;
    *device(DRIVER_FEATURES) = 1; /* VIRTIO_F_VERSION_1 */
    *device(STATUS) = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    for (unsigned i = 0; i < 2; i++) {
        *device(QUEUE_SEL) = i;
        *device(QUEUE_NUM) = QUEUE_SIZE;
        *device(QUEUE_DESC) = (uintptr_t)queues[i].descriptors;
        *device(QUEUE_DRIVER) = (uintptr_t)&queues[i].available;
        *device(QUEUE_DEVICE) = (uintptr_t)&queues[i].used;
        *device(QUEUE_READY) = 1;
    }
    *device(STATUS) = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
}

/* Tell the host about the pages collected for queue `which`, and wait until it has heard. */
static void tell(unsigned which)
{
    struct queue *const q = &queues[which];
    if (!q->count)
        return;
    q->descriptors[0].address = (uintptr_t)q->pages;
    q->descriptors[0].length = q->count * sizeof q->pages[0];
    q->available.ring[q->available.index % QUEUE_SIZE] = 0;
    __asm__ volatile("" : : : "memory");
    q->available.index++;
    __asm__ volatile("" : : : "memory");
    *device(QUEUE_NOTIFY) = which;
    while (*(volatile uint16_t *)&q->used.index != q->available.index)
        __asm__ volatile("pause");
    q->count = 0;
}

static void put(unsigned which, uint32_t page)
{
    struct queue *const q = &queues[which];
    q->pages[q->count++] = DATA_ADDRESS / PAGE + page;
    ballooned += which == INFLATE ? 1 : -1;
    if (q->count == REQUEST_PAGES)
        tell(which);
}

/* Let the balloon hold what the host wants of `pages` pages, as far as they can be given. */
static void serve_balloon(uint32_t pages)
{
    tell(DEFLATE);
    const uint32_t target = *device(CONFIG_PAGES), before = ballooned;
    for (uint32_t step = 0; step < pages && ballooned < target; step++) {
        hand = hand + 1 < pages ? hand + 1 : pages / HOT_PART;
        if (place[hand] == HERE && kind_of(hand) != DATA)
            place[hand] = FREE;
        if (place[hand] == FREE) {
            place[hand] = BALLOONED;
            put(INFLATE, hand);
        }
    }
    for (uint32_t page = 0; page < pages && ballooned > target; page++)
        if (place[page] == BALLOONED) {
            place[page] = FREE;
            put(DEFLATE, page);
        }
    tell(INFLATE);
    tell(DEFLATE);
    if (ballooned != before)
        *device(CONFIG_ACTUAL) = ballooned;
}

/* ---- the work ---- */

static unsigned visit(uint32_t page)
{
    if (place[page] != HERE) {
        if (place[page] == BALLOONED)
            put(DEFLATE, page);
        place[page] = HERE;
        make(page);
    }
    const volatile uint64_t *const words = memory[page];
    uint64_t sum = 0;
    for (unsigned i = 0; i < WORDS; i += 8)
        sum += words[i] + words[i + 1] + words[i + 2] + words[i + 3] + words[i + 4] + words[i + 5] + words[i + 6] +
               words[i + 7];
    const enum kind kind = kind_of(page);
    if (kind == ZERO)
        return sum != 0;
    if (kind == DATA)
        memory[page][0]++;
    uint64_t state = seed_of(page);
    return words[1] != next(&state);
}

__attribute__((used)) static void begin(void)
{
    uint64_t state = seed_of(parameters.pages);
    uint32_t pages = 0, wrong = 0, visits = 0;
    start_balloon();
    for (uint32_t turn = 1;; turn++) {
        if (pages < parameters.pages && turn % GROW_TURNS == 1) {
            make(pages++);
            if (pages == parameters.pages)
                out32(METER_FILLED, 1);
        }
        wrong += visit(below(&state, pages));
        for (unsigned i = 1; i < COLD_VISITS; i++)
            wrong += visit(below(&state, pages / HOT_PART + 1));
        visits += COLD_VISITS;
        if (turn % METER_TURNS == 0) {
            out32(METER_VISITS, visits);
            if (wrong)
                out32(METER_WRONG, wrong);
            visits = wrong = 0;
        }
        if (has_balloon && turn % BALLOON_TURNS == 0)
            serve_balloon(pages);
    }
}
