/* LOCK BT, BTS, BTR or BTC of a register is #UD. Unicorn 2.1 (like QEMU 5) translates it as an access to memory at an
 * address that was never computed, and its code generator then ends the process. */
#ifndef EMUVISOR_BIT_TEST_H
#define EMUVISOR_BIT_TEST_H

/* The linear address that such an instruction is made to access instead. It is not canonical and reaches beyond 32
 * bits, so no other instruction gets there but one of a 64-bit guest that wants a fault anyway. */
#define UNDEFINED_PAGE 0x00bad0bad0bad000u

/* Put our functions into `library`. NULL, or the name of what cannot be replaced. */
const char *bit_test_install(void *library);

#endif
