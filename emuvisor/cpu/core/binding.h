/* The Python types of the module, one file each. */
#ifndef EMUVISOR_BINDING_H
#define EMUVISOR_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <string.h>

#include "paging.h"
#include "pcpu.h"

typedef struct {
    PyObject_HEAD
    frames f;
    Py_buffer memory, fetched;
} Frames;

typedef struct { /* one byte per frame of a slot, kept by Python */
    Py_buffer buffer;
    bool held;
} ByteMap;

typedef struct {
    PyObject_HEAD
    stage2 s;
    PyObject *frames;
    PyObject *fault; /* fault(gfn, write) -> bool */
    Py_buffer entries[STAGE2_SLOTS];
    ByteMap dirty[STAGE2_SLOTS];
    ByteMap accessed[STAGE2_SLOTS];
    bool failed; /* the fault handler raised: the error is kept here */
    PyObject *error[3];
} Stage2;

enum {
    CALL_PORT_READ,
    CALL_PORT_WRITE,
    CALL_MMIO_READ,
    CALL_MMIO_WRITE,
    CALL_CPUID,
    CALL_ACKNOWLEDGE,
    CALL_MSR_READ,
    CALL_MSR_WRITE,
    CALL_READ_CR8,
    CALL_WRITE_CR8,
    CALLS
};

typedef struct {
    PyObject_HEAD
    vcpu v;
    PyObject *memory; /* Stage2 */
    PyObject *calls[CALLS];
    PyObject *error[3];
} Vcpu;

extern PyType_Spec frames_spec, stage2_spec, vcpu_spec, pcpu_spec;
extern PyTypeObject *frames_type, *stage2_type, *vcpu_type;
extern PyObject *pristine; /* a new engine's state, as bytes; NULL before load() */

#endif
