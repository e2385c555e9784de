/* PAUSE: how a vCPU that waits for a sibling is noticed. */
#ifndef EMUVISOR_PAUSE_H
#define EMUVISOR_PAUSE_H

/* Replace the engine's function in `library`. NULL, or its name when it cannot be replaced. */
const char *pause_install(void *library);

#endif
