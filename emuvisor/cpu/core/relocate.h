/* Replace a function of a loaded shared library in that library's own relocated pointers. */
#ifndef EMUVISOR_RELOCATE_H
#define EMUVISOR_RELOCATE_H

/* Point every relocation of `symbol` inside the library with dlopen handle `library` at `replacement`.
 * Returns how many there were, or -1 when a page could not be made writable. */
int relocate(void *library, const char *symbol, void *replacement);

#endif
