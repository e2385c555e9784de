/* Host breakpoints and watchpoints: nothing in the engine unless a vCPU has some. */
#ifndef EMUVISOR_DEBUG_H
#define EMUVISOR_DEBUG_H

#include "pcpu.h"

/* Bring the engine's hooks in line with the loaded vCPU's breakpoints and watchpoints. */
void debug_install(pcpu *p);
/* Take all of them out of the engine. */
void debug_remove(pcpu *p);

#endif
