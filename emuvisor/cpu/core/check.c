#include "check.h"

#include "events.h"
#include "flat.h"

/* The arguments that all functions begin with. */
typedef struct {
    Py_buffer env_buffer, memory_buffer;
    cpu_env env;
    flat_memory memory;
} call;

static int open_call(call *call, PyObject *env, PyObject *memory, long long accesses)
{
    if (PyObject_GetBuffer(env, &call->env_buffer, PyBUF_WRITABLE) < 0)
        return -1;
    if (call->env_buffer.len < (Py_ssize_t)sizeof(cpu_env)) {
        PyErr_Format(PyExc_ValueError, "env has %zd bytes, a vCPU state has %zu", call->env_buffer.len,
                     sizeof(cpu_env));
        PyBuffer_Release(&call->env_buffer);
        return -1;
    }
    if (PyObject_GetBuffer(memory, &call->memory_buffer, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&call->env_buffer);
        return -1;
    }
    memcpy(&call->env, call->env_buffer.buf, sizeof call->env);
    call->memory = flat_open(call->memory_buffer.buf, (uint64_t)call->memory_buffer.len, accesses);
    return 0;
}

static PyObject *close_call(call *call, PyObject *result)
{
    memcpy(call->env_buffer.buf, &call->env, sizeof call->env);
    PyBuffer_Release(&call->env_buffer);
    PyBuffer_Release(&call->memory_buffer);
    return result;
}

static PyObject *check_walk(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *env, *memory;
    unsigned long long address;
    unsigned access;
    long long accesses = -1;
    call call;
    if (!PyArg_ParseTuple(args, "OOKI|L", &env, &memory, &address, &access, &accesses) ||
        open_call(&call, env, memory, accesses) < 0)
        return NULL;
    walk walk = {0};
    int result = (int)paging_walk(&call.env, &call.memory.physical, address, access, &walk);
    return close_call(&call, Py_BuildValue("(iKKNNI)", result, (unsigned long long)walk.gpa,
                                           (unsigned long long)walk.page_size, PyBool_FromLong(walk.writable),
                                           PyBool_FromLong(walk.executable), walk.error_code));
}

static PyObject *check_deliver(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *env, *memory, *error_code;
    unsigned char vector;
    int kind;
    unsigned long long instruction;
    long long accesses = -1;
    call call;
    if (!PyArg_ParseTuple(args, "OObiOK|L", &env, &memory, &vector, &kind, &error_code, &instruction, &accesses))
        return NULL;
    event event = {.vector = vector, .kind = (enum event_kind)kind, .instruction = instruction};
    if (error_code != Py_None) {
        event.has_error_code = true;
        event.error_code = (uint32_t)PyLong_AsUnsignedLongMask(error_code);
        if (PyErr_Occurred())
            return NULL;
    }
    if (open_call(&call, env, memory, accesses) < 0)
        return NULL;
    long result = (long)events_deliver(&call.env, &call.memory.physical, &event);
    return close_call(&call, PyLong_FromLong(result));
}

static PyObject *check_syscall(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *env, *memory;
    unsigned length;
    call call;
    if (!PyArg_ParseTuple(args, "OOI", &env, &memory, &length) || open_call(&call, env, memory, -1) < 0)
        return NULL;
    long result = (long)events_syscall(&call.env, &call.memory.physical, length);
    return close_call(&call, PyLong_FromLong(result));
}

static PyObject *check_sysenter(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *env, *memory;
    call call;
    if (!PyArg_ParseTuple(args, "OO", &env, &memory) || open_call(&call, env, memory, -1) < 0)
        return NULL;
    long result = (long)events_sysenter(&call.env, &call.memory.physical);
    return close_call(&call, PyLong_FromLong(result));
}

static PyObject *check_port_allowed(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *env, *memory;
    unsigned short port;
    unsigned size;
    call call;
    if (!PyArg_ParseTuple(args, "OOHI", &env, &memory, &port, &size) || open_call(&call, env, memory, -1) < 0)
        return NULL;
    bool allowed;
    event fault = {0};
    uint64_t address = 0;
    int result = (int)events_port_allowed(&call.env, &call.memory.physical, port, size, &allowed, &fault, &address);
    return close_call(&call, Py_BuildValue("(iNBIK)", result, PyBool_FromLong(allowed), fault.vector,
                                           fault.error_code, (unsigned long long)address));
}

PyMethodDef check_methods[] = {
    {"check_walk", check_walk, METH_VARARGS,
     "check_walk(env, memory, address, access[, accesses]) -> (result, gpa, page_size, writable, executable, "
     "error_code)\n\npaging_walk on a vCPU state and a flat memory. The host refuses one access, after `accesses` others."},
    {"check_deliver", check_deliver, METH_VARARGS,
     "check_deliver(env, memory, vector, kind, error_code_or_None, instruction[, accesses]) -> result\n\n"
     "events_deliver; changes `env` and `memory` in place."},
    {"check_syscall", check_syscall, METH_VARARGS, "check_syscall(env, memory, length) -> result"},
    {"check_sysenter", check_sysenter, METH_VARARGS, "check_sysenter(env, memory) -> result"},
    {"check_port_allowed", check_port_allowed, METH_VARARGS,
     "check_port_allowed(env, memory, port, size) -> (result, allowed, vector, error_code, fault_address)"},
    {NULL, NULL, 0, NULL},
};
