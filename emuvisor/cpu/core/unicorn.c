/* Finding Unicorn, and making sure that it is the Unicorn we know. */
#define _GNU_SOURCE
#include "unicorn.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bit_test.h"
#include "msr.h"
#include "pause.h"
#include "relocate.h"

unicorn_api unicorn;
cpu_env unicorn_pristine;

static char message[512];

#define FAIL(...) (snprintf(message, sizeof message, __VA_ARGS__), message)

/* Unicorn has translated code ask after every load and store, and at the start of every block, whether it should
 * stop. The core never needs the answer: a refused access leaves at once, and the block hook leaves by itself (run.c,
 * look). The first replacement emits nothing after loads and stores; the second is what block starts call. */
static void no_check(void *tcg_context) { (void)tcg_context; }
static void no_request(void *engine, uint32_t in_delay_slot)
{
    (void)engine;
    (void)in_delay_slot;
}

/* Unicorn leaves a block in its middle: the core takes what has not run off the count. */
static void leave_block(void *cpu)
{
    unicorn_block_left();
    unicorn.loop_exit_noexc(cpu);
}

/* RDRAND: no CPU model shows it, but the engine executes it. It never has a number ready (CF is 0): a guest's run
 * must not depend on the host's entropy. */
static uint64_t no_random(cpu_env *env)
{
    env->cc_src = 0;
    return 0;
}

static const char *resolve(void *library)
{
    const struct {
        void *where;
        const char *name;
    } symbols[] = {
        {&unicorn.version, "uc_version"},
        {&unicorn.strerror, "uc_strerror"},
        {&unicorn.open, "uc_open"},
        {&unicorn.close, "uc_close"},
        {&unicorn.ctl, "uc_ctl"},
        {&unicorn.hook_add, "uc_hook_add"},
        {&unicorn.hook_del, "uc_hook_del"},
        {&unicorn.mem_map_ptr, "uc_mem_map_ptr"},
        {&unicorn.mmio_map, "uc_mmio_map"},
        {&unicorn.emu_start, "uc_emu_start"},
        {&unicorn.emu_stop, "uc_emu_stop"},
        {&unicorn.reg_read, "uc_reg_read"},
        {&unicorn.reg_write, "uc_reg_write"},
        {&unicorn.raise_exception_err, "raise_exception_err_x86_64"},
        {&unicorn.update_dr7, "cpu_x86_update_dr7_x86_64"},
        {&unicorn.fill_tlb, "unicorn_fill_tlb_x86_64"},
        {&unicorn.tlb_flush_page, "tlb_flush_page_x86_64"},
        {&unicorn.tlb_set_page, "tlb_set_page_x86_64"},
        {&unicorn.loop_exit_noexc, "cpu_loop_exit_noexc_x86_64"},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *address = dlsym(library, symbols[i].name);
        if (!address)
            return FAIL("libunicorn has no function %s", symbols[i].name);
        memcpy(symbols[i].where, &address, sizeof address);
    }
    return NULL;
}

/* Copy `size` bytes from an address that may not be mapped; returns how many could be read. The kernel checks
 * the address for us: write() into a pipe fails with EFAULT instead of faulting. */
static size_t peek(const void *from, void *to, size_t size)
{
    static int pipe_fds[2] = {-1, -1};
    size_t done = 0;
    if (pipe_fds[0] < 0 && pipe2(pipe_fds, O_CLOEXEC) != 0)
        return 0;
    while (done < size) {
        ssize_t n = 4096 - (ssize_t)(((uintptr_t)from + done) & 4095);
        if ((size_t)n > size - done)
            n = (ssize_t)(size - done);
        ssize_t written = write(pipe_fds[1], (const char *)from + done, (size_t)n);
        if (written <= 0)
            break;
        if (read(pipe_fds[0], (char *)to + done, (size_t)written) != written)
            break;
        done += (size_t)written;
    }
    return done;
}

static const int gpr_ids[16] = {35, 38, 40, 37, 44, 36, 43, 39, 106, 107, 108, 109, 110, 111, 112, 113};

cpu_env *unicorn_find_env(uc_engine *engine)
{
    uint64_t sentinels[16];
    static uint8_t window[64 * 1024];
    uint64_t old[16];
    cpu_env *found = NULL;
    const size_t words = malloc_usable_size(engine) / sizeof(void *);

    for (int i = 0; i < 16; i++) {
        sentinels[i] = 0x9e3779b97f4a7c15u * (uint64_t)(i + 1) ^ (uintptr_t)engine;
        unicorn.reg_read(engine, gpr_ids[i], &old[i]);
        unicorn.reg_write(engine, gpr_ids[i], &sentinels[i]);
    }
    for (size_t w = 0; w < words && !found; w++) {
        char *candidate = ((char **)engine)[w];
        if (!candidate || ((uintptr_t)candidate & 7) || (uintptr_t)candidate < 65536)
            continue;
        size_t n = peek(candidate, window, sizeof window);
        const uint8_t *hit = memmem(window, n, sentinels, sizeof sentinels);
        if (hit && n - (size_t)(hit - window) >= sizeof(cpu_env))
            found = (cpu_env *)(candidate + (hit - window));
    }
    if (found) { /* it is the live one only if writing through it is seen by Unicorn */
        uint64_t value = 0;
        found->regs[R_BX] ^= 0x5a5a;
        unicorn.reg_read(engine, gpr_ids[R_BX], &value);
        if (value != (sentinels[R_BX] ^ 0x5a5a))
            found = NULL;
    }
    for (int i = 0; i < 16; i++)
        unicorn.reg_write(engine, gpr_ids[i], &old[i]);
    return found;
}

static const char *check_register(uc_engine *engine, int id, const void *field, uint64_t value,
                                  const char *name)
{
    unicorn.reg_write(engine, id, &value);
    if (memcmp(field, &value, sizeof value) != 0)
        return FAIL("the CPU state of this libunicorn has an unknown layout: %s is elsewhere", name);
    return NULL;
}

static const char *check_msr(uc_engine *engine, uint32_t msr, const void *field, uint64_t value, size_t size,
                             const char *name)
{
    uc_x86_msr pair = {msr, value};
    unicorn.reg_write(engine, UC_X86_REG_MSR, &pair);
    if (memcmp(field, &value, size) != 0)
        return FAIL("the CPU state of this libunicorn has an unknown layout: %s is elsewhere", name);
    return NULL;
}

/* Every field of cpu_env that the core touches, by writing it through the public API and looking for it. */
static const char *check_layout(uc_engine *engine, cpu_env *env)
{
    const char *error = NULL;
    const uint64_t v = 0x0000123456789a00u;
    uint32_t flags, want;
    uint16_t word = 0x3a5;
    const uint16_t last[3] = {0x5a5, 0x1234, 0x4321}; /* FOP, FCS, FDS */
    uint8_t wide[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    const uint32_t mxcsr = 0x1f8f;

#define CHECK(call) if ((error = (call)) != NULL) return error
    CHECK(check_register(engine, UC_X86_REG_CR0 + 2, &env->cr[2], v + 2, "CR2"));
    CHECK(check_register(engine, UC_X86_REG_CR0 + 3, &env->cr[3], v + 3, "CR3"));
    CHECK(check_register(engine, UC_X86_REG_DR0, &env->dr[0], v + 5, "DR0"));
    CHECK(check_register(engine, UC_X86_REG_DR0 + 7, &env->dr[7], 0x400, "DR7"));
    CHECK(check_register(engine, UC_X86_REG_FIP, &env->fpip, v + 1, "FIP"));
    CHECK(check_register(engine, UC_X86_REG_FDP, &env->fpdp, v + 4, "FDP"));
    CHECK(check_msr(engine, 0x174, &env->sysenter_cs, 0x7654, 4, "SYSENTER_CS"));
    CHECK(check_msr(engine, 0x175, &env->sysenter_esp, v + 6, 8, "SYSENTER_ESP"));
    CHECK(check_msr(engine, 0x176, &env->sysenter_eip, v + 7, 8, "SYSENTER_EIP"));
    CHECK(check_msr(engine, 0xc0000080, &env->efer, 0x501, 8, "EFER"));
    CHECK(check_msr(engine, 0xc0000081, &env->star, v + 8, 8, "STAR"));
    CHECK(check_msr(engine, 0xc0000082, &env->lstar, v + 9, 8, "LSTAR"));
    CHECK(check_msr(engine, 0xc0000083, &env->cstar, v + 10, 8, "CSTAR"));
    CHECK(check_msr(engine, 0xc0000084, &env->fmask, v + 11, 8, "FMASK"));
    CHECK(check_msr(engine, 0xc0000100, &env->segs[S_FS].base, v + 12, 8, "FS.base"));
    CHECK(check_msr(engine, 0xc0000101, &env->segs[S_GS].base, v + 13, 8, "GS.base"));
    CHECK(check_msr(engine, 0xc0000102, &env->kernel_gs_base, v + 14, 8, "KERNEL_GS_BASE"));
    CHECK(check_msr(engine, 0xc0000103, &env->tsc_aux, v + 15, 8, "TSC_AUX"));
    CHECK(check_msr(engine, 0x277, &env->pat, 0x0007040600070401u, 8, "PAT"));
    CHECK(check_msr(engine, 0x1a0, &env->misc_enable, v + 16, 8, "MISC_ENABLE"));
#undef CHECK
    for (flags = 0; flags < 2; flags++) {
        want = flags ? 0xcd7 : 0x202; /* all arithmetic flags and DF, then only IF */
        unicorn.reg_write(engine, UC_X86_REG_EFLAGS, &want);
        if (env->cc_op != CC_OP_EFLAGS || env_rflags(env) != want)
            return FAIL("the CPU state of this libunicorn has an unknown layout: EFLAGS is elsewhere");
        env_set_rflags(env, want ^ 0x8d5);
        uint32_t seen = 0;
        unicorn.reg_read(engine, UC_X86_REG_EFLAGS, &seen);
        if (seen != (want ^ 0x8d5))
            return FAIL("the CPU state of this libunicorn has an unknown layout: writing EFLAGS fails");
    }
    unicorn.reg_write(engine, UC_X86_REG_FPCW, &word);
    unicorn.reg_write(engine, UC_X86_REG_FOP, &last[0]);
    unicorn.reg_write(engine, UC_X86_REG_FCS, &last[1]);
    unicorn.reg_write(engine, UC_X86_REG_FDS, &last[2]);
    unicorn.reg_write(engine, UC_X86_REG_XMM0 + 15, wide);
    unicorn.reg_write(engine, UC_X86_REG_MXCSR, &mxcsr);
    unicorn.reg_write(engine, UC_X86_REG_FP0 + 1, wide);
    if (env->fpuc != word || memcmp(env->xmm[15], wide, 16) != 0 || env->mxcsr != mxcsr
        || memcmp(&env->fpregs[1], wide, 10) != 0 || memcmp(&env->fpop, last, sizeof last) != 0)
        return FAIL("the CPU state of this libunicorn has an unknown layout: the FPU is elsewhere");
    return NULL;
}

static bool refuse(uc_engine *engine, uint64_t address, int type, uc_tlb_entry *entry, void *data)
{
    (void)engine;
    (void)data;
    entry->paddr = 0;
    entry->perms = UC_PROT_READ | UC_PROT_EXEC;
    return type == UC_MEM_FETCH && address == 0;
}

/* Run MOV from and to CR8, RDMSR and WRMSR to see that msr.c is asked, and then a load whose translation is refused,
 * twice, to find where its address is noted. */
static const char *check_behaviour(uc_engine *engine, cpu_env *env)
{
    static uint8_t page[4096] __attribute__((aligned(4096)));
    const uint8_t code[] = {
        0x44, 0x0f, 0x20, 0xc0, /* mov rax, cr8 */
        0x44, 0x0f, 0x22, 0xc0, /* mov cr8, rax */
        0x0f, 0x32,             /* rdmsr */
        0x0f, 0x30,             /* wrmsr */
        0x48, 0x8b, 0x03,       /* mov rax, [rbx] */
    };
    const uint64_t load = sizeof code - 3;
    const uint64_t addresses[2] = {0x123456789ab1, 0x76543210fed3};
    uc_hook fill;
    size_t candidates[64], count = 0, left = 0;
    const size_t words = malloc_usable_size(engine) / sizeof(uint64_t);

    memcpy(page, code, sizeof code);
    if (unicorn.mem_map_ptr(engine, 0, sizeof page, UC_PROT_ALL, page) != UC_ERR_OK
        || unicorn.hook_add(engine, &fill, UC_HOOK_TLB_FILL, (void *)refuse, NULL, 1, 0) != UC_ERR_OK)
        return FAIL("libunicorn refused to set up its self-test");
    for (int turn = 0; turn < 2; turn++) {
        env->regs[R_BX] = addresses[turn];
        msr_forget_asked();
        if (unicorn.emu_start(engine, 0, 0, 0, 0) != UC_ERR_EXCEPTION || env->rip != load)
            return FAIL("this libunicorn does not report a refused translation as expected");
        if (!msr_all_asked())
            return FAIL("this libunicorn does not ask the core about MSRs and CR8");
        left = 0;
        if (turn == 0) {
            for (size_t w = 0; w < words && count < 64; w++)
                if (((uint64_t *)engine)[w] == addresses[0])
                    candidates[count++] = w;
        }
        for (size_t i = 0; i < count; i++)
            if (((uint64_t *)engine)[candidates[i]] == addresses[turn])
                candidates[left++] = candidates[i];
        count = left;
    }
    if (count != 1)
        return FAIL("this libunicorn has an unknown layout: the address of a refused access is elsewhere");
    unicorn.invalid_address_offset = candidates[0] * sizeof(uint64_t);
    return NULL;
}

static const char *probe(void)
{
    uc_engine *engine;
    const char *error;
    if (unicorn.open(UC_ARCH_X86, UC_MODE_64, &engine) != UC_ERR_OK)
        return FAIL("libunicorn cannot open an x86 engine");
    unicorn.ctl(engine, UC_CTL_TCG_BUFFER_SIZE, 1u << 20);
    unicorn.ctl(engine, UC_CTL_UC_USE_EXITS, 1);
    unicorn.ctl(engine, UC_CTL_TLB_TYPE, UC_TLB_VIRTUAL);
    cpu_env *env = unicorn_find_env(engine);
    if (!env) {
        error = FAIL("the CPU state of this libunicorn cannot be found");
    } else {
        memcpy(&unicorn_pristine, env, sizeof unicorn_pristine);
        error = check_layout(engine, env);
        memcpy(env, &unicorn_pristine, sizeof unicorn_pristine);
        if (!error)
            error = check_behaviour(engine, env);
    }
    unicorn.close(engine);
    return error;
}

const char *unicorn_load(const char *path, bool short_code, unicorn_fill *fill)
{
    unsigned major, minor;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return FAIL("%s", dlerror());
    const char *error = resolve(library);
    if (error)
        return error;
    unicorn.version(&major, &minor);
    if (major != 2 || minor != 1)
        return FAIL("libunicorn is version %u.%u; emuvisor knows 2.1", major, minor);
    /* Before the first engine: engines copy these pointers into their own tables. */
    if (short_code)
        unicorn.short_code = relocate(library, "check_exit_request_x86_64", (void *)no_check) > 0
                             && relocate(library, "helper_check_exit_request_x86_64", (void *)no_request) > 0
                             && relocate(library, "unicorn_fill_tlb_x86_64", (void *)fill) > 0;
    if (relocate(library, "cpu_loop_exit_noexc_x86_64", (void *)leave_block) <= 0
        || relocate(library, "helper_rdrand_x86_64", (void *)no_random) <= 0)
        return FAIL("libunicorn does not call its internal functions through pointers that can be replaced");
    const char *missing = msr_install(library);
    if (!missing)
        missing = pause_install(library);
    if (!missing)
        missing = bit_test_install(library);
    if (missing)
        return FAIL("libunicorn has no function %s that can be replaced", missing);
    return probe();
}
