/* One TCP connection: throughput or round trips.
 *
 *     tcp serve ADDRESS PORT                        takes connections for ever, each in turn; port 0 takes a free one
 *     tcp send ADDRESS PORT BYTES                   sends BYTES, waits until the other side has them all
 *     tcp receive ADDRESS PORT BYTES                asks for BYTES and takes them
 *     tcp trips ADDRESS PORT COUNT                  sends a byte and waits for it, COUNT times
 *
 * The server prints "listening on PORT", the others what they did: "send BYTES". The bytes are a pattern, which the receiving
 * side checks. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK (256 * 1024)
#define PERIOD 251 /* a prime: a lost or repeated packet changes the pattern */

struct request {
    uint32_t kind; /* 's', 'r' or 't', in network order as the rest */
    uint32_t high, low;
};

static unsigned char pattern[CHUNK + PERIOD], buffer[CHUNK];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void put(int fd, const void *data, size_t size)
{
    for (const char *p = data; size;) {
        const ssize_t n = write(fd, p, size);
        if (n <= 0)
            die("write");
        p += n;
        size -= (size_t)n;
    }
}

static void get(int fd, void *data, size_t size)
{
    for (char *p = data; size;) {
        const ssize_t n = read(fd, p, size);
        if (n <= 0)
            die("read");
        p += n;
        size -= (size_t)n;
    }
}

static void put_many(int fd, uint64_t total)
{
    for (uint64_t done = 0; done < total;) {
        const size_t size = total - done < CHUNK ? (size_t)(total - done) : CHUNK;
        put(fd, pattern + done % PERIOD, size);
        done += size;
    }
}

static void get_many(int fd, uint64_t total)
{
    for (uint64_t done = 0; done < total;) {
        const size_t size = total - done < CHUNK ? (size_t)(total - done) : CHUNK;
        const ssize_t n = read(fd, buffer, size);
        if (n <= 0)
            die("read");
        if (memcmp(buffer, pattern + done % PERIOD, (size_t)n)) {
            fprintf(stderr, "wrong bytes\n");
            exit(1);
        }
        done += (uint64_t)n;
    }
}

static void trips(int fd, uint64_t count, int first)
{
    char byte = 'x';
    for (uint64_t i = 0; i < count; i++) {
        if (first)
            put(fd, &byte, 1);
        get(fd, &byte, 1);
        if (!first)
            put(fd, &byte, 1);
    }
}

static void answer(int fd)
{
    struct request request;
    char byte = 'k';
    get(fd, &request, sizeof request);
    const uint64_t amount = (uint64_t)ntohl(request.high) << 32 | ntohl(request.low);
    switch (ntohl(request.kind)) {
    case 's':
        get_many(fd, amount);
        put(fd, &byte, 1);
        break;
    case 'r':
        put_many(fd, amount);
        get(fd, &byte, 1);
        break;
    default:
        trips(fd, amount, 0);
    }
}

static struct sockaddr_in address_of(const char *address, const char *port)
{
    struct sockaddr_in found = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, address, &found.sin_addr) != 1) {
        fprintf(stderr, "%s is no address\n", address);
        exit(2);
    }
    return found;
}

static void __attribute__((noreturn)) serve(struct sockaddr_in here)
{
    const int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t length = sizeof here;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 8) ||
        getsockname(listener, (struct sockaddr *)&here, &length))
        die("listen");
    printf("listening on %d\n", ntohs(here.sin_port));
    fflush(stdout);
    for (;;) {
        const int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            die("accept");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        answer(fd);
        close(fd);
    }
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (unsigned char)(i % PERIOD);
    if (argc == 4 && !strcmp(argv[1], "serve"))
        serve(address_of(argv[2], argv[3]));
    if (argc != 5) {
        fprintf(stderr, "tcp serve ADDRESS PORT | send|receive|trips ADDRESS PORT AMOUNT\n");
        return 2;
    }
    const uint64_t amount = strtoull(argv[4], NULL, 0);
    const int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    const struct sockaddr_in there = address_of(argv[2], argv[3]);
    if (connect(fd, (struct sockaddr *)&there, sizeof there))
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    const struct request request = {htonl((uint32_t)argv[1][0]), htonl((uint32_t)(amount >> 32)),
                                    htonl((uint32_t)amount)};
    put(fd, &request, sizeof request);
    char byte = 'k';
    switch (argv[1][0]) {
    case 's':
        put_many(fd, amount);
        get(fd, &byte, 1);
        break;
    case 'r':
        get_many(fd, amount);
        put(fd, &byte, 1);
        break;
    default:
        trips(fd, amount, 1);
    }
    printf("%s %llu\n", argv[1], (unsigned long long)amount);
    return 0;
}
