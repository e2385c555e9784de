#include "supervisor.h"

#include "paging.h"

unsigned supervisor_read_code(const cpu_env *env, physical *memory, uint8_t *code, unsigned size)
{
    unsigned done = 0;
    uint64_t address = env->segs[S_CS].base + env->rip;
    walk w;
    for (; done < size; done++, address++) {
        if (!(env->hflags & HF_CS64))
            address = (uint32_t)address;
        if (paging_walk(env, memory, address, ACCESS_FETCH | (env_cpl(env) == 3 ? ACCESS_USER : 0), &w) != WALK_OK
            || memory->read(memory, w.gpa, &code[done], 1) != PHYSICAL_OK)
            break;
    }
    return done;
}

static bool is_prefix(uint8_t byte, bool long_mode)
{
    switch (byte) {
    case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: /* segment overrides */
    case 0x66: case 0x67: case 0xf0: case 0xf2: case 0xf3:
        return true;
    default:
        return long_mode && (byte & 0xf0) == 0x40; /* REX */
    }
}

/* Does the instruction load a segment register, check a selector or change the code segment? */
static bool uses_selectors(const uint8_t *code, unsigned size, bool long_mode)
{
    unsigned i = 0;
    while (i < size && is_prefix(code[i], long_mode))
        i++;
    if (i + 1 >= size)
        return i < size && (code[i] == 0xcb || code[i] == 0xcf || code[i] == 0x07 || code[i] == 0x17 || code[i] == 0x1f);
    const uint8_t reg = code[i + 1] >> 3 & 7;
    switch (code[i]) {
    case 0x8e:                                  /* MOV Sreg */
    case 0x07: case 0x17: case 0x1f:            /* POP ES, SS, DS */
    case 0xc4: case 0xc5:                       /* LES, LDS */
    case 0x9a: case 0xea: case 0xca: case 0xcb: /* far CALL, JMP, RET */
    case 0xcf:                                  /* IRET */
        return true;
    case 0xff: return reg == 3 || reg == 5; /* far CALL and JMP through memory */
    case 0x0f: break;
    default: return false;
    }
    switch (code[i + 1]) {
    case 0x02: case 0x03:            /* LAR, LSL */
    case 0xa1: case 0xa9:            /* POP FS, GS */
    case 0xb2: case 0xb4: case 0xb5: /* LSS, LFS, LGS */
        return true;
    case 0x00: /* VERR, VERW */
        return i + 2 < size && ((code[i + 2] >> 3 & 7) == 4 || (code[i + 2] >> 3 & 7) == 5);
    default: return false;
    }
}

static bool overlaps(uint64_t page, uint64_t base, uint64_t limit)
{
    return base < page + PAGE_SIZE && base + limit >= page;
}

bool supervisor_access(const cpu_env *env, physical *memory, uint64_t page)
{
    uint8_t code[15];
    if (!overlaps(page, env->gdt.base, env->gdt.limit) && !overlaps(page, env->ldt.base, env->ldt.limit)
        && !overlaps(page, env->tr.base, env->tr.limit))
        return false;
    const unsigned size = supervisor_read_code(env, memory, code, sizeof code);
    return uses_selectors(code, size, env->hflags & HF_CS64);
}
