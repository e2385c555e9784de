/* Implicit supervisor accesses: the processor reads descriptor tables and the TSS with supervisor rights, at CPL 3
 * too (Intel SDM vol. 3, 4.6.1), but Unicorn does not say so when it asks for a translation. */
#ifndef EMUVISOR_SUPERVISOR_H
#define EMUVISOR_SUPERVISOR_H

#include "env.h"
#include "physical.h"

/* Is an access to `page` by the instruction at CS:RIP one that the processor makes for itself? True for an
 * instruction that loads or checks selectors, where `page` holds a part of GDT, LDT or TSS. */
bool supervisor_access(const cpu_env *env, physical *memory, uint64_t page);

/* Read `size` bytes of code at CS:RIP; returns how many there were. */
unsigned supervisor_read_code(const cpu_env *env, physical *memory, uint8_t *code, unsigned size);

#endif
