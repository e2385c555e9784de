#include "debug.h"

#include <string.h>

#include "paging.h"

static void on_breakpoint(uc_engine *engine, uint64_t address, uint32_t size, void *data)
{
    pcpu *p = data;
    vcpu *v = p->vcpu;
    (void)engine;
    (void)size;
    if (v->steps_off && v->stepping_off == address) {
        v->steps_off = false;
        return;
    }
    v->stop_address = v->stepping_off = address;
    v->steps_off = true;
    p->debug = true;
    unicorn.raise_exception_err(p->env, VECTOR_LEAVE, 0); /* leaves before the instruction */
}

static void on_watched(uc_engine *engine, int type, uint64_t address, int size, int64_t value, void *data)
{
    pcpu *p = data;
    vcpu *v = p->vcpu;
    const bool write = type == UC_MEM_WRITE;
    (void)engine;
    (void)value;
    for (unsigned i = 0; i < v->watchpoint_count; i++) {
        const watchpoint *w = &v->watchpoints[i];
        for (uint64_t gpa = w->gpa; (write ? w->write : w->read) && gpa < w->gpa + w->length;
             gpa = (gpa | (PAGE_SIZE - 1)) + 1) {
            const uint8_t *host = v->memory->physical.host(&v->memory->physical, gpa);
            if (!host)
                continue;
            const uint64_t start = (uint64_t)(host - v->memory->frames->base);
            const uint64_t page_left = PAGE_SIZE - gpa % PAGE_SIZE, left = w->gpa + w->length - gpa;
            if (address + (uint64_t)size > start && address < start + (left < page_left ? left : page_left)) {
                v->stop_address = address > start ? gpa + (address - start) : gpa;
                p->debug = true;
                vcpu_attention(v); /* leave before the next block: the access itself happens */
                return;
            }
        }
    }
}

void debug_remove(pcpu *p)
{
    if (!p->break_count && !p->watching)
        return;
    for (unsigned i = 0; i < p->break_count; i++)
        unicorn.hook_del(p->engine, p->break_hooks[i]);
    if (p->watching) {
        unicorn.hook_del(p->engine, p->watch_hooks[0]);
        unicorn.hook_del(p->engine, p->watch_hooks[1]);
    }
    p->break_count = 0;
    p->watching = false;
    unicorn.ctl(p->engine, UC_CTL_TB_FLUSH); /* hooks are compiled into the translations */
}

void debug_install(pcpu *p)
{
    vcpu *v = p->vcpu;
    if (v->steps_off && p->env->segs[S_CS].base + p->env->rip != v->stepping_off)
        v->steps_off = false;
    if (p->break_count == v->breakpoint_count && p->watching == (v->watchpoint_count > 0)
        && memcmp(p->break_addresses, v->breakpoints, v->breakpoint_count * sizeof v->breakpoints[0]) == 0)
        return;
    debug_remove(p);
    for (unsigned i = 0; i < v->breakpoint_count; i++) {
        p->break_addresses[i] = v->breakpoints[i];
        unicorn.hook_add(p->engine, &p->break_hooks[i], UC_HOOK_CODE, (void *)on_breakpoint, p, v->breakpoints[i],
                         v->breakpoints[i]);
    }
    p->break_count = v->breakpoint_count;
    if (v->watchpoint_count) {
        unicorn.hook_add(p->engine, &p->watch_hooks[0], UC_HOOK_MEM_READ, (void *)on_watched, p, (uint64_t)1, (uint64_t)0);
        unicorn.hook_add(p->engine, &p->watch_hooks[1], UC_HOOK_MEM_WRITE, (void *)on_watched, p, (uint64_t)1, (uint64_t)0);
        p->watching = true;
    }
    unicorn.ctl(p->engine, UC_CTL_TB_FLUSH);
    unicorn.ctl(p->engine, UC_CTL_TLB_FLUSH);
}
