/* Direct I/O to a block device at a given depth, by the kernel's native asynchronous I/O.
 *
 *     aio DEVICE read|write random|sequential BLOCK-BYTES DEPTH COUNT START SPAN-BYTES
 *
 * COUNT blocks inside the SPAN bytes from START on, at most DEPTH of them at a time; a write stores its own number at the
 * start of each sector (more would measure the CPU, not the disk), and is flushed at the end. Prints "COUNT blocks, SUM": SUM
 * adds the first eight bytes of each block that was read, so the same disk gives the same sum. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_DEPTH 256
#define ALIGNMENT 4096
#define SECTOR 512

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Xorshift (Marsaglia 2003): the same blocks in each run. */
static uint64_t next(void)
{
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

int main(int argc, char **argv)
{
    if (argc != 9) {
        fprintf(stderr, "aio DEVICE read|write random|sequential BLOCK-BYTES DEPTH COUNT START SPAN-BYTES\n");
        return 2;
    }
    const int writes = !strcmp(argv[2], "write"), randomly = !strcmp(argv[3], "random");
    const size_t block = strtoul(argv[4], NULL, 0);
    const unsigned depth = strtoul(argv[5], NULL, 0), count = strtoul(argv[6], NULL, 0);
    const uint64_t blocks = strtoull(argv[8], NULL, 0) / block;
    const uint64_t start = strtoull(argv[7], NULL, 0);
    const int fd = open(argv[1], (writes ? O_WRONLY : O_RDONLY) | O_DIRECT);
    if (fd < 0)
        die(argv[1]);
    aio_context_t context = 0;
    if (depth < 1 || depth > MAX_DEPTH || syscall(SYS_io_setup, MAX_DEPTH, &context) < 0)
        die("io_setup");
    struct iocb requests[MAX_DEPTH];
    struct io_event done[MAX_DEPTH];
    unsigned idle[MAX_DEPTH], idles = depth, sent = 0, finished = 0;
    uint64_t sum = 0;
    char *buffers;
    if (posix_memalign((void **)&buffers, ALIGNMENT, depth * block))
        die("memory");
    for (unsigned i = 0; i < depth; i++)
        idle[i] = i;
    while (finished < count) {
        struct iocb *batch[MAX_DEPTH];
        long size = 0;
        while (idles && sent < count) {
            const unsigned slot = idle[--idles];
            uint64_t *buffer = (uint64_t *)(buffers + slot * block);
            const uint64_t where = start + (randomly ? next() % blocks : sent % blocks) * block;
            for (size_t i = 0; writes && i < block / sizeof *buffer; i += SECTOR / sizeof *buffer)
                buffer[i] = sent;
            requests[slot] = (struct iocb){.aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
                                           .aio_fildes = fd,
                                           .aio_buf = (uintptr_t)buffer,
                                           .aio_nbytes = block,
                                           .aio_offset = where,
                                           .aio_data = slot};
            batch[size++] = &requests[slot];
            sent++;
        }
        for (long taken = 0; taken < size;) {
            const long more = syscall(SYS_io_submit, context, size - taken, batch + taken);
            if (more < 0)
                die("io_submit");
            taken += more;
        }
        const long events = syscall(SYS_io_getevents, context, 1, MAX_DEPTH, done, NULL);
        if (events < 0)
            die("io_getevents");
        for (long i = 0; i < events; i++) {
            const unsigned slot = done[i].data;
            if (done[i].res != (int64_t)block)
                die("a request");
            if (!writes)
                sum += *(uint64_t *)(buffers + slot * block);
            idle[idles++] = slot;
            finished++;
        }
    }
    if (writes && fsync(fd))
        die("fsync");
    printf("%u blocks, %llu\n", finished, (unsigned long long)sum);
    return 0;
}
