/* The page walk. Section numbers are of the Intel SDM, volume 3. */
#include "paging.h"

/* paging entries (4.3 to 4.5) */
#define PTE_P ((uint64_t)1 << 0)
#define PTE_W ((uint64_t)1 << 1)
#define PTE_U ((uint64_t)1 << 2)
#define PTE_A ((uint64_t)1 << 5)
#define PTE_D ((uint64_t)1 << 6)
#define PTE_PS ((uint64_t)1 << 7)
#define PTE_NX ((uint64_t)1 << 63)

/* bits first..last, both included */
#define BITS(first, last) ((~(uint64_t)0 >> (63 - (last))) & (~(uint64_t)0 << (first)))

#define ENTRY_ADDRESS BITS(12, PHYSICAL_ADDRESS_BITS - 1)
#define LONG_RESERVED BITS(PHYSICAL_ADDRESS_BITS, 51)
#define PAE_RESERVED BITS(PHYSICAL_ADDRESS_BITS, 62)
#define PDPTE_PAE_RESERVED (BITS(PHYSICAL_ADDRESS_BITS, 63) | BITS(1, 2) | BITS(5, 8))
#define PAGE_1G_RESERVED BITS(13, 29)
#define PAGE_2M_RESERVED BITS(13, 20)
#define PAGE_4M_RESERVED BITS(21, 21)

#define CR3_TABLE_32 BITS(12, 31)
#define CR3_TABLE_PAE BITS(5, 31)
#define LINEAR_32 UINT32_MAX
#define LAST_CANONICAL_BIT 47

#define PAGE_2M_SHIFT 21
#define PAGE_4M_SHIFT 22
#define PAGE_4K_SHIFT 12

/* The entries that a walk used, top level first. */
typedef struct {
    uint64_t gpa[4];
    uint64_t value[4];
    unsigned count;
    unsigned entry_size;
} path;

static inline uint64_t a20_mask(const cpu_env *env) { return (uint64_t)(int64_t)env->a20_mask; }

/* Follow one level: read entry `index` of `table` into the path. */
static inline bool follow(const cpu_env *env, physical *memory, path *path, uint64_t table, uint64_t index)
{
    uint64_t gpa = (table + index * path->entry_size) & a20_mask(env), value = 0;
    if (physical_read(memory, gpa, &value, path->entry_size) != PHYSICAL_OK)
        return false;
    path->gpa[path->count] = gpa;
    path->value[path->count++] = value;
    return true;
}

/* 4.7: the bits that describe the access itself */
static uint32_t access_bits(const cpu_env *env, unsigned access)
{
    bool nx = env->cr[4] & CR4_PAE && env->efer & EFER_NXE;
    uint32_t code = 0;
    if (access & ACCESS_WRITE)
        code |= PF_W;
    if (access & ACCESS_USER)
        code |= PF_U;
    if (access & ACCESS_FETCH && (nx || env->cr[4] & CR4_SMEP))
        code |= PF_I;
    return code;
}

static enum walk_result fault(const cpu_env *env, unsigned access, uint32_t cause, walk *out)
{
    out->error_code = access_bits(env, access) | cause;
    return WALK_FAULT;
}

static enum walk_result unmapped(const cpu_env *env, unsigned access, uint64_t entry, walk *out)
{
    return fault(env, access, entry & PTE_P ? PF_P | PF_RSVD : 0, out);
}

/* 4.8: set A in the path's entries and D in the last one. */
static enum walk_result set_flags(physical *memory, const path *path, bool dirty)
{
    for (unsigned i = 0; i < path->count; i++) {
        uint64_t set = PTE_A | (dirty && i + 1 == path->count ? PTE_D : 0);
        uint64_t value = path->value[i] | set;
        if (value == path->value[i])
            continue;
        if (memory->write(memory, path->gpa[i], &value, path->entry_size) != PHYSICAL_OK)
            return WALK_HOST;
    }
    return WALK_OK;
}

/* 4.6: access rights, once the walk has reached a page at `frame`. `rights` is the AND of all entries' R/W
 * and U/S bits, `no_execute` the OR of their XD bits. */
static inline enum walk_result finish(const cpu_env *env, physical *memory, uint64_t address, unsigned access,
                                      const path *path, uint64_t frame, unsigned shift, uint64_t rights,
                                      bool no_execute, walk *out)
{
    bool user_page = rights & PTE_U, writable = rights & PTE_W, readable = true, executable = !no_execute;
    if (access & ACCESS_USER) {
        readable = user_page;
        writable = writable && user_page;
        executable = executable && user_page;
    } else {
        writable = writable || !(env->cr[0] & CR0_WP);
        if (user_page) {
            bool allowed = !(access & ACCESS_IMPLICIT) && env->eflags & FL_AC;
            if (env->cr[4] & CR4_SMAP && !allowed)
                readable = writable = false;
            if (env->cr[4] & CR4_SMEP)
                executable = false;
        }
    }
    if ((access & ACCESS_READ && !readable) || (access & ACCESS_WRITE && !writable) ||
        (access & ACCESS_FETCH && !executable))
        return fault(env, access, PF_P, out);

    bool dirty = access & ACCESS_WRITE || path->value[path->count - 1] & PTE_D;
    uint64_t size = (uint64_t)1 << shift;
    out->gpa = (frame | (address & (size - 1))) & a20_mask(env);
    out->page_size = size;
    out->writable = writable && dirty;
    out->executable = executable;
    out->error_code = 0;
    return set_flags(memory, path, access & ACCESS_WRITE);
}

/* 4.5: four levels of 512 entries */
static enum walk_result walk_long(const cpu_env *env, physical *memory, uint64_t address, unsigned access,
                                  walk *out)
{
    int64_t sign = (int64_t)address >> LAST_CANONICAL_BIT;
    if (sign != 0 && sign != -1) {
        out->error_code = WALK_NONCANONICAL;
        return WALK_FAULT;
    }
    /* what is reserved in a page of each size, and in an entry that is no page; PS in a PML4E always is */
    static const uint64_t page_reserved[4] = {PTE_PS, PAGE_1G_RESERVED, PAGE_2M_RESERVED, 0};
    uint64_t reserved = LONG_RESERVED | (env->efer & EFER_NXE ? 0 : PTE_NX);
    path path = {.entry_size = 8};
    uint64_t table = env->cr[3] & ENTRY_ADDRESS, rights = PTE_W | PTE_U, no_execute = 0;
    for (unsigned level = 0, shift = 39;; level++, shift -= 9) {
        if (!follow(env, memory, &path, table, address >> shift & 511))
            return WALK_HOST;
        uint64_t entry = path.value[level];
        bool leaf = level == 3 || entry & PTE_PS;
        if (!(entry & PTE_P) || entry & (reserved | (leaf ? page_reserved[level] : 0)))
            return unmapped(env, access, entry, out);
        rights &= entry;
        no_execute |= entry & PTE_NX;
        table = entry & ENTRY_ADDRESS;
        if (leaf) {
            uint64_t frame = table & ~(((uint64_t)1 << shift) - 1);
            return finish(env, memory, address, access, &path, frame, shift, rights, no_execute != 0, out);
        }
    }
}

/* 4.4: a page-directory-pointer table of four entries, then two levels of 512. The processor would load the
 * four entries with CR3; reading them at each walk is what AMD's does under nested paging. */
static enum walk_result walk_pae(const cpu_env *env, physical *memory, uint64_t address, unsigned access,
                                 walk *out)
{
    uint64_t pdpte;
    uint64_t pdpte_gpa = ((env->cr[3] & CR3_TABLE_PAE) + (address >> 30) * 8) & a20_mask(env);
    if (physical_read(memory, pdpte_gpa, &pdpte, sizeof pdpte) != PHYSICAL_OK)
        return WALK_HOST;
    if (!(pdpte & PTE_P) || pdpte & PDPTE_PAE_RESERVED)
        return unmapped(env, access, pdpte, out);

    uint64_t reserved = PAE_RESERVED | (env->efer & EFER_NXE ? 0 : PTE_NX);
    path path = {.entry_size = 8};
    if (!follow(env, memory, &path, pdpte & ENTRY_ADDRESS, address >> PAGE_2M_SHIFT & 511))
        return WALK_HOST;
    uint64_t pde = path.value[0];
    bool large = pde & PTE_PS;
    if (!(pde & PTE_P) || pde & (reserved | (large ? PAGE_2M_RESERVED : 0)))
        return unmapped(env, access, pde, out);
    if (large)
        return finish(env, memory, address, access, &path, pde & BITS(PAGE_2M_SHIFT, PHYSICAL_ADDRESS_BITS - 1),
                      PAGE_2M_SHIFT, pde, pde >> 63, out);

    if (!follow(env, memory, &path, pde & ENTRY_ADDRESS, address >> PAGE_4K_SHIFT & 511))
        return WALK_HOST;
    uint64_t pte = path.value[1];
    if (!(pte & PTE_P) || pte & reserved)
        return unmapped(env, access, pte, out);
    return finish(env, memory, address, access, &path, pte & ENTRY_ADDRESS, PAGE_4K_SHIFT, pde & pte,
                  (pde | pte) >> 63, out);
}

/* 4.3: two levels of 1024 four-byte entries */
static enum walk_result walk_32(const cpu_env *env, physical *memory, uint64_t address, unsigned access,
                                walk *out)
{
    path path = {.entry_size = 4};
    if (!follow(env, memory, &path, env->cr[3] & CR3_TABLE_32, address >> PAGE_4M_SHIFT))
        return WALK_HOST;
    uint64_t pde = path.value[0];
    bool large = pde & PTE_PS && env->cr[4] & CR4_PSE;
    if (!(pde & PTE_P) || (large && pde & PAGE_4M_RESERVED))
        return unmapped(env, access, pde, out);
    if (large) {
        /* PSE-36: bits 20:13 are address bits 39:32 */
        uint64_t frame = (pde & BITS(22, 31)) | (pde & BITS(13, 20)) << 19;
        return finish(env, memory, address, access, &path, frame, PAGE_4M_SHIFT, pde, false, out);
    }
    if (!follow(env, memory, &path, pde & CR3_TABLE_32, address >> PAGE_4K_SHIFT & 1023))
        return WALK_HOST;
    uint64_t pte = path.value[1];
    if (!(pte & PTE_P))
        return unmapped(env, access, pte, out);
    return finish(env, memory, address, access, &path, pte & CR3_TABLE_32, PAGE_4K_SHIFT, pde & pte, false,
                  out);
}

enum walk_result paging_walk(const cpu_env *env, physical *memory, uint64_t address, unsigned access,
                             walk *out)
{
    if (env->cr[0] & CR0_PG) {
        if (env->efer & EFER_LMA)
            return walk_long(env, memory, address, access, out);
        if (env->cr[4] & CR4_PAE)
            return walk_pae(env, memory, address & LINEAR_32, access, out);
        return walk_32(env, memory, address & LINEAR_32, access, out);
    }
    *out = (walk){.gpa = address & LINEAR_32 & a20_mask(env),
                  .page_size = PAGE_SIZE,
                  .writable = true,
                  .executable = true};
    return WALK_OK;
}
