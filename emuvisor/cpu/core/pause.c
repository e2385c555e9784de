/* Pause-loop exiting, as VT-x has it (Intel SDM vol. 3, 26.1.3): PAUSEs that follow each other closely are a loop that
 * waits; when it has lasted for the window, the run ends. A guest's vCPUs take turns, so what it waits for
 * does not come before another one has run. */
#include "pause.h"

#include <dlfcn.h>
#include <string.h>

#include "hooks.h"
#include "relocate.h"

/* Bytes of code between two PAUSEs of one loop, at most. */
#define PAUSE_GAP 256u

static void (*engine_pause)(cpu_env *env, int length); /* leaves the block by longjmp */

static void on_pause(cpu_env *env, int length)
{
    pcpu *p = pcpu_of(env);
    if (p) {
        vcpu *v = p->vcpu;
        v->counters[COUNT_PAUSE]++;
        if (v->work - v->last_pause > PAUSE_GAP)
            v->loop_start = v->work;
        v->last_pause = v->work;
        if (v->pause_window && v->work - v->loop_start >= v->pause_window) {
            v->spinning = true;
            vcpu_attention(v);
        }
    }
    engine_pause(env, length);
}

const char *pause_install(void *library)
{
    static const char name[] = "helper_pause_x86_64";
    void *address = dlsym(library, name);
    if (!address)
        return name;
    memcpy(&engine_pause, &address, sizeof address);
    return relocate(library, name, (void *)on_pause) > 0 ? NULL : name;
}
