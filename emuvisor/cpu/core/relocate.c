/* ELF dynamic relocations (System V ABI, AMD64 supplement, 4.4), as dlinfo shows them. */
#define _GNU_SOURCE
#include "relocate.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int set_pointer(uintptr_t where, void *value)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    void *start = (void *)(where & ~(page - 1));
    if (*(void **)where == value)
        return 0;
    /* Part of the pointers lie in RELRO pages. They stay writable: which pages were is not recorded. */
    if (mprotect(start, page, PROT_READ | PROT_WRITE) != 0)
        return -1;
    *(void **)where = value;
    return 0;
}

int relocate(void *library, const char *symbol, void *replacement)
{
    struct link_map *map;
    const Elf64_Sym *symbols = NULL;
    const char *strings = NULL;
    const Elf64_Rela *tables[2] = {NULL, NULL};
    size_t sizes[2] = {0, 0};
    int found = 0;

    if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0)
        return 0;
    for (const Elf64_Dyn *d = map->l_ld; d->d_tag != DT_NULL; d++) {
        switch (d->d_tag) {
        case DT_SYMTAB: symbols = (const Elf64_Sym *)d->d_un.d_ptr; break;
        case DT_STRTAB: strings = (const char *)d->d_un.d_ptr; break;
        case DT_RELA: tables[0] = (const Elf64_Rela *)d->d_un.d_ptr; break;
        case DT_RELASZ: sizes[0] = d->d_un.d_val; break;
        case DT_JMPREL: tables[1] = (const Elf64_Rela *)d->d_un.d_ptr; break;
        case DT_PLTRELSZ: sizes[1] = d->d_un.d_val; break;
        default: break;
        }
    }
    if (!symbols || !strings)
        return 0;
    for (int t = 0; t < 2; t++) {
        for (size_t i = 0; tables[t] && i < sizes[t] / sizeof(Elf64_Rela); i++) {
            const Elf64_Rela *r = &tables[t][i];
            const unsigned type = ELF64_R_TYPE(r->r_info);
            if (type != R_X86_64_64 && type != R_X86_64_GLOB_DAT && type != R_X86_64_JUMP_SLOT)
                continue;
            if (strcmp(strings + symbols[ELF64_R_SYM(r->r_info)].st_name, symbol) != 0)
                continue;
            if (set_pointer(map->l_addr + r->r_offset, replacement) != 0)
                return -1;
            found++;
        }
    }
    return found;
}
