/* The C core's pure functions as Python functions, for tests that hold them against the reference model. */
#ifndef EMUVISOR_CHECK_H
#define EMUVISOR_CHECK_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030b0000
#endif
#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

/* check_walk, check_deliver, check_syscall, check_sysenter, check_port_allowed; ends with an empty entry */
extern PyMethodDef check_methods[];

#endif
