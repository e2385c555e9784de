/* The first stage of address translation: guest virtual to guest physical (Intel SDM vol. 3, ch. 4). */
#ifndef EMUVISOR_PAGING_H
#define EMUVISOR_PAGING_H

#include "env.h"
#include "physical.h"

#define PAGE_SIZE 4096u
#define PAGE_MASK (~(uint64_t)0xfff)

/* MAXPHYADDR: physical address bits from here up to 51 are reserved in paging entries */
#define PHYSICAL_ADDRESS_BITS 40u

enum access { ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_FETCH = 4, ACCESS_USER = 8, ACCESS_IMPLICIT = 16 };
/* ACCESS_USER: made at CPL 3 and not an implicit supervisor access (descriptor tables, TSS, event stacks).
 * ACCESS_IMPLICIT: an implicit supervisor access, to which SMAP applies whatever EFLAGS.AC says.
 * Neither: an explicit supervisor access, made at CPL 0 to 2. */

/* page-fault error code */
#define PF_P 1u
#define PF_W 2u
#define PF_U 4u
#define PF_RSVD 8u
#define PF_I 16u

/* in place of an error code: the address is not canonical, so #GP or #SS and not a page fault */
#define WALK_NONCANONICAL UINT32_MAX

enum walk_result { WALK_OK, WALK_FAULT, WALK_HOST };

typedef struct {
    uint64_t gpa;         /* of the accessed byte, A20 applied */
    uint64_t page_size;   /* 4 KiB, 2 MiB, 4 MiB or 1 GiB; 4 KiB with paging off */
    bool writable;        /* a write by this same kind of access (user or supervisor) is allowed, and the
                             dirty bit is already set, so that it needs no second walk */
    bool executable;      /* likewise a fetch */
    uint32_t error_code;  /* of the page fault */
} walk;

/* Translate `address` for `access` and set accessed and dirty bits. Does not touch CR2. */
enum walk_result paging_walk(const cpu_env *env, physical *memory, uint64_t address, unsigned access,
                             walk *out);

#endif
