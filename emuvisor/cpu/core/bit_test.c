/* While Unicorn translates it reads an instruction's bytes one by one, up to the moment at which it emits the access:
 * so the last bytes read tell which instruction the access belongs to. */
#include "bit_test.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "env.h"
#include "relocate.h"

#define LOCK 0xf0
#define ESCAPE 0x0f      /* of two-byte opcodes */
#define GROUP_8 0xba     /* BT, BTS, BTR, BTC with an immediate, by ModRM.reg 4 to 7 */
#define FIRST_IN_GROUP 4
#define REGISTER_FORM 3u /* ModRM.mod */
#define MODRM_MOD_SHIFT 6
#define MODRM_REG(modrm) ((modrm) >> 3 & 7)
#define LONGEST 15 /* bytes of an instruction */

typedef void emit_load(void *context, void *value, void *address, uintptr_t index, int memop);
typedef void emit_atomic(void *context, void *old, void *address, void *value, uintptr_t index, int memop);

static uint32_t (*read_code)(cpu_env *env, uint64_t address);
static void (*emit_and)(void *context, void *result, void *value, int64_t constant);
static void (*emit_or)(void *context, void *result, void *value, int64_t constant);
static emit_load *emit_ld;
static emit_atomic *emit_fetch_or, *emit_fetch_and, *emit_fetch_xor;

/* The code bytes read last, at consecutive addresses; each pCPU translates on its own thread. */
static _Thread_local struct {
    uint64_t next;
    unsigned count;
    uint8_t bytes[LONGEST];
} code;

static uint32_t note_code(cpu_env *env, uint64_t address)
{
    const uint32_t byte = read_code(env, address);
    if (address != code.next)
        code.count = 0;
    if (code.count == LONGEST)
        memmove(code.bytes, code.bytes + 1, --code.count);
    code.bytes[code.count++] = (uint8_t)byte;
    code.next = address + 1;
    return byte;
}

static bool is_prefix(uint8_t byte)
{
    switch (byte) {
    case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x66: case 0x67: case 0xf2: case 0xf3:
        return true;
    default:
        return (byte & 0xf0) == 0x40; /* REX */
    }
}

/* Do the bytes read last end in LOCK, other prefixes, and a bit test of a register? */
static bool locked_register_bit_test(void)
{
    const uint8_t *end = code.bytes + code.count, *opcode = NULL;
    if (code.count >= 4 && end[-3] == ESCAPE && end[-1] >> MODRM_MOD_SHIFT == REGISTER_FORM
        && (end[-2] == 0xa3 || end[-2] == 0xab || end[-2] == 0xb3 || end[-2] == 0xbb)) /* BT, BTS, BTR, BTC */
        opcode = end - 3;
    else if (code.count >= 5 && end[-4] == ESCAPE && end[-3] == GROUP_8 && MODRM_REG(end[-2]) >= FIRST_IN_GROUP
             && end[-2] >> MODRM_MOD_SHIFT == REGISTER_FORM)
        opcode = end - 4;
    if (!opcode)
        return false;
    while (opcode > code.bytes && is_prefix(opcode[-1]))
        opcode--;
    return opcode > code.bytes && opcode[-1] == LOCK;
}

/* Give the access an address, at which translate.c refuses it. */
static void check(void *context, void *address)
{
    if (!locked_register_bit_test())
        return;
    emit_and(context, address, address, 0); /* emits "address = 0": only then it may be read */
    emit_or(context, address, address, (int64_t)UNDEFINED_PAGE);
}

static void load(void *context, void *value, void *address, uintptr_t index, int memop)
{
    check(context, address);
    emit_ld(context, value, address, index, memop);
}

static void fetch_or(void *context, void *old, void *address, void *value, uintptr_t index, int memop)
{
    check(context, address);
    emit_fetch_or(context, old, address, value, index, memop);
}

static void fetch_and(void *context, void *old, void *address, void *value, uintptr_t index, int memop)
{
    check(context, address);
    emit_fetch_and(context, old, address, value, index, memop);
}

static void fetch_xor(void *context, void *old, void *address, void *value, uintptr_t index, int memop)
{
    check(context, address);
    emit_fetch_xor(context, old, address, value, index, memop);
}

const char *bit_test_install(void *library)
{
    const struct {
        const char *name;
        void *original;
        void *replacement; /* NULL: only called */
    } functions[] = {
        {"tcg_gen_andi_i64_x86_64", &emit_and, NULL},
        {"tcg_gen_ori_i64_x86_64", &emit_or, NULL},
        {"cpu_ldub_code_x86_64", &read_code, (void *)note_code},
        {"tcg_gen_qemu_ld_i64_x86_64", &emit_ld, (void *)load},
        {"tcg_gen_atomic_fetch_or_i64_x86_64", &emit_fetch_or, (void *)fetch_or},
        {"tcg_gen_atomic_fetch_and_i64_x86_64", &emit_fetch_and, (void *)fetch_and},
        {"tcg_gen_atomic_fetch_xor_i64_x86_64", &emit_fetch_xor, (void *)fetch_xor},
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *address = dlsym(library, functions[i].name);
        if (!address)
            return functions[i].name;
        memcpy(functions[i].original, &address, sizeof address);
    }
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (functions[i].replacement && relocate(library, functions[i].name, functions[i].replacement) <= 0)
            return functions[i].name;
    return NULL;
}
