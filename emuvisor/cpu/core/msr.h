/* RDMSR, WRMSR and MOV to and from CR8: the core answers in place of the engine. */
#ifndef EMUVISOR_MSR_H
#define EMUVISOR_MSR_H

#include <stdbool.h>

/* Replace the engine's functions in `library`. NULL, or the name of one that cannot be replaced. */
const char *msr_install(void *library);
/* Has every replacement been called since `msr_forget_asked`, by whichever engine? */
bool msr_all_asked(void);
void msr_forget_asked(void);

#endif
