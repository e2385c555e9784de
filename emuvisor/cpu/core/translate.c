/* What the engine asks when its TLB has no entry, and taking back what has become wrong. */
#include "hooks.h"

#include <string.h>

#include "bit_test.h"
#include "paging.h"
#include "supervisor.h"

#define CPU_STATE_SIZE 65536u /* more than Unicorn's X86CPU has */

void flush_tlb(pcpu *p)
{
    unicorn.ctl(p->engine, UC_CTL_TLB_FLUSH);
    if (p->vcpu) {
        p->epoch = p->vcpu->memory->epoch;
        p->vcpu->counters[COUNT_TLB_FLUSH]++;
    }
}

static void drop_translations(pcpu *p, uint64_t start, uint64_t end)
{
    p->dropping = true; /* Unicorn translates `start` as a virtual address: on_tlb_fill answers identically */
    unicorn.ctl(p->engine, UC_CTL_TLB_FLUSH);
    unicorn.ctl(p->engine, UC_CTL_TB_REMOVE_CACHE, start, end);
    p->dropping = false;
    flush_tlb(p);
}

static void forget_frame(pcpu *p, uint32_t frame)
{
    if (!(__atomic_load_n(&p->frames->fetched[frame], __ATOMIC_ACQUIRE) >> p->index & 1))
        return;
    drop_translations(p, (uint64_t)frame * PAGE_SIZE, (uint64_t)(frame + 1) * PAGE_SIZE);
    __atomic_fetch_and(&p->frames->fetched[frame], ~(1u << p->index), __ATOMIC_ACQ_REL);
}

void drop_stale(pcpu *p)
{
    frame_range ranges[STALE_RANGES];
    unsigned count;
    if (__atomic_load_n(&p->stale.count, __ATOMIC_ACQUIRE) == 0)
        return;
    pthread_mutex_lock(&p->frames->lock);
    count = p->stale.count;
    p->stale.count = 0;
    memcpy(ranges, p->stale.ranges, (count > STALE_RANGES ? 0 : count) * sizeof ranges[0]);
    pthread_mutex_unlock(&p->frames->lock);
    if (count > STALE_RANGES) {
        unicorn.ctl(p->engine, UC_CTL_TB_FLUSH);
        flush_tlb(p);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        if (ranges[i].end - ranges[i].start == PAGE_SIZE)
            forget_frame(p, (uint32_t)(ranges[i].start / PAGE_SIZE));
        else
            drop_translations(p, ranges[i].start, ranges[i].end);
    }
    if (p->vcpu)
        p->vcpu->counters[COUNT_STALE] += count;
}

/* Any thread, under the frames' lock. */
void on_stale(void *engine)
{
    pcpu *p = engine;
    if (p->vcpu)
        vcpu_attention(p->vcpu);
}

static bool refuse(pcpu *p, uint64_t page, bool fetch, bool host, uint32_t error_code)
{
    p->refused.valid = true;
    p->refused.host = host;
    p->refused.fetch = fetch;
    p->refused.page = page;
    p->refused.error_code = error_code;
    return false;
}

/* Leave, and execute the instruction once more. */
static bool try_again(pcpu *p, uint64_t page, bool fetch)
{
    p->refused.again = true;
    return refuse(p, page, fetch, false, 0);
}

static bool runs_in(const pcpu *p, uint64_t page)
{
    return p->block_end && ((p->block_start & PAGE_MASK) == page || ((p->block_end - 1) & PAGE_MASK) == page);
}

/* The code at `page` may lie in another frame than before. When a block jumps within its page, the engine ties it to
 * the block that it finds at that address, for all who ever run it: guests that share the old frame would go on in a
 * frame that is not theirs. So nothing of the old frame may be found by address any more, and a block that runs there
 * is left for good (true). */
static bool code_moves(pcpu *p, uint64_t page, uint32_t frame, bool fetch, bool executable)
{
    const bool running = runs_in(p, page);
    code_page *known = &p->code[page / PAGE_SIZE % CODE_PAGES];
    if (!(running || executable) || (known->valid && known->page == page && known->frame == frame))
        return false;
    if (p->cpu)
        unicorn.tlb_flush_page(p->cpu, page);
    else
        flush_tlb(p);
    if (fetch || running) {
        known->page = page;
        known->frame = frame;
        known->valid = true;
    } else if (known->page == page) {
        known->valid = false;
    }
    return running;
}

/* The first stage, by the guest's page tables. */
static enum walk_result first_stage(pcpu *p, uint64_t page, unsigned access, walk *w)
{
    physical *memory = &p->vcpu->memory->physical;
    if (env_cpl(p->env) != 3)
        return paging_walk(p->env, memory, page, access, w);
    if (p->mode == MODE_SUPERVISOR)
        return paging_walk(p->env, memory, page, access | ACCESS_IMPLICIT, w);
    const enum walk_result result = paging_walk(p->env, memory, page, access | ACCESS_USER, w);
    if (result == WALK_FAULT && p->mode == MODE_UNKNOWN && access != ACCESS_FETCH
        && supervisor_access(p->env, memory, page))
        return paging_walk(p->env, memory, page, access | ACCESS_IMPLICIT, w);
    return result;
}

/* Translate `page` in both stages for the engine's TLB. False: refused, and p->refused says why. */
static bool fill(pcpu *p, uint64_t page, bool write, bool fetch, uc_tlb_entry *entry)
{
    vcpu *v = p->vcpu;
    uint32_t frame;
    walk w;

    if (p->refused.again) /* it is asked twice: see translate_fast_fill */
        return false;
    if (page == UNDEFINED_PAGE)
        return refuse(p, page, false, false, REFUSED_UNDEFINED);
    const enum walk_result result =
        first_stage(p, page, fetch ? ACCESS_FETCH : write ? ACCESS_WRITE : ACCESS_READ, &w);
    if (result != WALK_OK)
        return refuse(p, page, fetch, result == WALK_HOST, w.error_code);

    const uint64_t faults = v->memory->faults;
    const enum stage2_result found = stage2_translate(v->memory, w.gpa / PAGE_SIZE, write, &frame);
    const bool moved = v->memory->epoch != p->epoch;
    if (moved)
        flush_tlb(p);
    if (found == STAGE2_HOST)
        return refuse(p, page, fetch, true, 0);
    const bool faulted = v->memory->faults != faults;
    if (faulted)
        forget_frame(p, frame); /* a moment ago it may have been another guest's code */
    if (moved || (faulted && runs_in(p, page)))
        return try_again(p, page, fetch); /* what runs may have been copied or forgotten: it is translated anew */
    switch (found) {
    case STAGE2_NOTHING:
        if (fetch) {
            if (code_moves(p, page, FRAME_ONES, true, true))
                return try_again(p, page, true);
            entry->paddr = (uint64_t)FRAME_ONES * PAGE_SIZE;
            entry->perms = UC_PROT_EXEC;
        } else {
            entry->paddr = MMIO_BASE + (w.gpa & PAGE_MASK);
            entry->perms = UC_PROT_READ | (w.writable ? UC_PROT_WRITE : 0);
        }
        return true;
    case STAGE2_DISCARD:
        if (write) {
            entry->paddr = MMIO_BASE + (w.gpa & PAGE_MASK);
            entry->perms = UC_PROT_WRITE;
            return true;
        }
        break;
    default: break;
    }

    const uint32_t mine = 1u << p->index;
    const uint32_t fetched = __atomic_load_n(&p->frames->fetched[frame], __ATOMIC_ACQUIRE);
    bool writable = found == STAGE2_READWRITE && w.writable;
    bool executable = (fetched & mine) && w.executable;
    if (fetch && !(fetched & mine)) {
        /* From now on stores to this frame must be seen: no writable translation without EXEC may stay. */
        __atomic_fetch_or(&p->frames->fetched[frame], mine, __ATOMIC_ACQ_REL);
        flush_tlb(p);
    }
    if (!fetch && writable && (fetched & mine) && !executable) {
        /* Data through a mapping that is not executable: code went away, or is being written by an alias. */
        if (write)
            forget_frame(p, frame);
        else
            writable = false;
    }
    if (writable && fetched & ~mine)
        frames_changed(p->frames, frame, 0, PAGE_SIZE, (int)p->index);
    executable |= fetch;
    if (code_moves(p, page, frame, fetch, executable))
        return try_again(p, page, fetch);
    entry->paddr = (uint64_t)frame * PAGE_SIZE;
    entry->perms = UC_PROT_READ | (writable ? UC_PROT_WRITE : 0) | (executable ? UC_PROT_EXEC : 0);
    return true;
}

bool on_tlb_fill(uc_engine *engine, uint64_t address, int type, uc_tlb_entry *entry, void *data)
{
    pcpu *p = data;
    (void)engine;
    if (p->dropping) {
        entry->paddr = address;
        entry->perms = UC_PROT_ALL;
        return true;
    }
    p->vcpu->counters[COUNT_TLB_FILL]++;
    return fill(p, address, type == UC_MEM_WRITE, type == UC_MEM_FETCH, entry);
}

/* Does the engine's CPUState `cpu` belong to `p`? Its env is a part of it. */
static bool is_own(pcpu *p, void *cpu)
{
    if (!p->cpu && (uintptr_t)p->env - (uintptr_t)cpu < CPU_STATE_SIZE)
        p->cpu = cpu;
    return p->cpu == cpu;
}

/* In place of unicorn_fill_tlb, which restores the CPU state from the translation before it calls the hook, although only a
 * refusal needs it, and does not pass on the MMU mode. */
bool translate_fast_fill(void *cpu, uint64_t address, int size, int access, int mmu_mode, bool probe, uintptr_t retaddr)
{
    pcpu *p = pcpu_running;
    uc_tlb_entry entry;
    if (!p || p->dropping || !is_own(p, cpu))
        return unicorn.fill_tlb(cpu, address, size, access, mmu_mode, probe, retaddr);
    p->vcpu->counters[COUNT_TLB_FILL]++;
    p->mode = mmu_mode == UNICORN_MMU_USER ? MODE_USER : MODE_SUPERVISOR;
    if (fill(p, address & PAGE_MASK, access == UNICORN_ACCESS_STORE, access == UNICORN_ACCESS_FETCH, &entry)) {
        unicorn.tlb_set_page(cpu, address & PAGE_MASK, entry.paddr, entry.perms, mmu_mode, PAGE_SIZE);
        return true;
    }
    p->vcpu->counters[COUNT_TLB_FILL]--; /* refused: the hook is asked again, and the engine leaves */
    return unicorn.fill_tlb(cpu, address, size, access, mmu_mode, probe, retaddr);
}
