/* Vcpu: a guest's processor as state, and the calls to its owner. */
#include "binding.h"

static const char *const call_names[CALLS] = {"port_read",   "port_write", "mmio_read", "mmio_write", "cpuid",
                                              "acknowledge", "msr_read",   "msr_write", "read_cr8",   "write_cr8"};

static Vcpu *of(vcpu *v) { return (Vcpu *)((char *)v - offsetof(Vcpu, v)); }

static bool keep_error(Vcpu *self)
{
    if (self->error[0])
        PyErr_Clear();
    else
        PyErr_Fetch(&self->error[0], &self->error[1], &self->error[2]);
    return false;
}

/* Take an integer result; steals `r`. */
static bool take(Vcpu *self, PyObject *r, uint64_t *value)
{
    if (!r)
        return keep_error(self);
    *value = PyLong_AsUnsignedLongLongMask(r);
    Py_DECREF(r);
    return !PyErr_Occurred() || keep_error(self);
}

static bool call_port_read(vcpu *v, uint16_t port, unsigned size, uint32_t *value)
{
    uint64_t wide = 0;
    PyGILState_STATE gil = PyGILState_Ensure();
    const bool ok = take(of(v), PyObject_CallFunction(of(v)->calls[CALL_PORT_READ], "iI", (int)port, size), &wide);
    PyGILState_Release(gil);
    *value = (uint32_t)wide;
    return ok;
}

static bool call_port_write(vcpu *v, uint16_t port, unsigned size, uint32_t value)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *r = PyObject_CallFunction(of(v)->calls[CALL_PORT_WRITE], "iII", (int)port, value, size);
    const bool ok = r != NULL || keep_error(of(v));
    Py_XDECREF(r);
    PyGILState_Release(gil);
    return ok;
}

static bool call_mmio_read(vcpu *v, uint64_t gpa, unsigned size, uint64_t *value)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    const bool ok =
        take(of(v), PyObject_CallFunction(of(v)->calls[CALL_MMIO_READ], "KI", (unsigned long long)gpa, size), value);
    PyGILState_Release(gil);
    return ok;
}

static bool call_mmio_write(vcpu *v, uint64_t gpa, unsigned size, uint64_t value)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *r = PyObject_CallFunction(of(v)->calls[CALL_MMIO_WRITE], "KKI", (unsigned long long)gpa,
                                        (unsigned long long)value, size);
    const bool ok = r != NULL || keep_error(of(v));
    Py_XDECREF(r);
    PyGILState_Release(gil);
    return ok;
}

static bool call_cpuid(vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *r = PyObject_CallFunction(of(v)->calls[CALL_CPUID], "II", leaf, subleaf);
    const bool ok = (r && PyArg_ParseTuple(r, "IIII", &out[0], &out[1], &out[2], &out[3])) || keep_error(of(v));
    Py_XDECREF(r);
    PyGILState_Release(gil);
    return ok;
}

static bool call_acknowledge(vcpu *v, int *vector)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *r = PyObject_CallFunction(of(v)->calls[CALL_ACKNOWLEDGE], NULL);
    bool ok = r != NULL;
    if (r && r != Py_None) {
        *vector = (int)PyLong_AsLong(r) & 0xff;
        ok = !PyErr_Occurred();
    }
    Py_XDECREF(r);
    if (!ok)
        keep_error(of(v));
    PyGILState_Release(gil);
    return ok;
}

static bool call_msr_read(vcpu *v, uint32_t index, uint64_t *value, bool *exists)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *r = PyObject_CallFunction(of(v)->calls[CALL_MSR_READ], "I", index);
    *exists = r != Py_None;
    bool ok = true;
    if (*exists)
        ok = take(of(v), r, value);
    else
        Py_DECREF(r);
    PyGILState_Release(gil);
    return ok;
}

static bool call_msr_write(vcpu *v, uint32_t index, uint64_t value, bool *accepted)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *r = PyObject_CallFunction(of(v)->calls[CALL_MSR_WRITE], "IK", index, (unsigned long long)value);
    const int truth = r ? PyObject_IsTrue(r) : -1;
    *accepted = truth != 0;
    const bool ok = truth >= 0 || keep_error(of(v));
    Py_XDECREF(r);
    PyGILState_Release(gil);
    return ok;
}

static bool call_read_cr8(vcpu *v, uint64_t *value)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    const bool ok = take(of(v), PyObject_CallFunction(of(v)->calls[CALL_READ_CR8], NULL), value);
    PyGILState_Release(gil);
    return ok;
}

static bool call_write_cr8(vcpu *v, uint64_t value)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *r = PyObject_CallFunction(of(v)->calls[CALL_WRITE_CR8], "K", (unsigned long long)value);
    const bool ok = r != NULL || keep_error(of(v));
    Py_XDECREF(r);
    PyGILState_Release(gil);
    return ok;
}

static const vcpu_callbacks callbacks = {
    .port_read = call_port_read,
    .port_write = call_port_write,
    .mmio_read = call_mmio_read,
    .mmio_write = call_mmio_write,
    .cpuid = call_cpuid,
    .acknowledge = call_acknowledge,
    .msr_read = call_msr_read,
    .msr_write = call_msr_write,
    .read_cr8 = call_read_cr8,
    .write_cr8 = call_write_cr8,
};

static PyObject *new_vcpu(PyTypeObject *type, PyObject *args, PyObject *kw)
{
    static char *names[] = {"memory", "handler", NULL};
    PyObject *memory, *handler;
    if (!PyArg_ParseTupleAndKeywords(args, kw, "O!O", names, stage2_type, &memory, &handler))
        return NULL;
    if (!pristine) {
        PyErr_SetString(PyExc_RuntimeError, "load() has not been called");
        return NULL;
    }
    Vcpu *self = (Vcpu *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->v.env = unicorn_pristine;
    self->v.memory = &((Stage2 *)memory)->s;
    self->v.callbacks = &callbacks;
    self->memory = Py_NewRef(memory);
    for (int i = 0; i < CALLS; i++) {
        self->calls[i] = PyObject_GetAttrString(handler, call_names[i]);
        if (!self->calls[i]) {
            Py_DECREF((PyObject *)self);
            return NULL;
        }
    }
    return (PyObject *)self;
}

static int vcpu_traverse(PyObject *o, visitproc visit, void *arg)
{
    Vcpu *self = (Vcpu *)o;
    for (int i = 0; i < CALLS; i++)
        Py_VISIT(self->calls[i]);
    Py_VISIT(self->memory);
    Py_VISIT(Py_TYPE(o));
    return 0;
}

static int vcpu_clear(PyObject *o)
{
    for (int i = 0; i < CALLS; i++)
        Py_CLEAR(((Vcpu *)o)->calls[i]);
    return 0;
}

static void vcpu_dealloc(PyObject *o)
{
    Vcpu *self = (Vcpu *)o;
    PyTypeObject *type = Py_TYPE(o);
    PyObject_GC_UnTrack(o);
    if (self->v.loaded)
        vcpu_unload(&self->v);
    for (int i = 0; i < CALLS; i++)
        Py_XDECREF(self->calls[i]);
    for (int i = 0; i < 3; i++)
        Py_XDECREF(self->error[i]);
    PyMem_Free(self->v.trace);
    Py_XDECREF(self->memory);
    PyObject_GC_Del(o);
    Py_DECREF(type);
}

static int refuse_running(Vcpu *self)
{
    if (!self->v.running)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "the vCPU is running");
    return -1;
}

static PyObject *vcpu_save(PyObject *o, PyObject *unused)
{
    Vcpu *self = (Vcpu *)o;
    (void)unused;
    if (!self->v.running)
        vcpu_sync(&self->v);
    else if (self->v.loaded) /* inside a callback: flags are lazily kept, so ask for a copy of the rest */
        memcpy(&self->v.env, self->v.loaded->env, sizeof self->v.env);
    return PyBytes_FromStringAndSize((const char *)&self->v.env, sizeof self->v.env);
}

static PyObject *vcpu_restore(PyObject *o, PyObject *arg)
{
    Vcpu *self = (Vcpu *)o;
    Py_buffer b;
    if (refuse_running(self) || PyObject_GetBuffer(arg, &b, PyBUF_SIMPLE) != 0)
        return NULL;
    if (b.len != sizeof self->v.env) {
        PyErr_Format(PyExc_ValueError, "a vCPU state has %zu bytes, not %zd", sizeof self->v.env, b.len);
        PyBuffer_Release(&b);
        return NULL;
    }
    vcpu_unload(&self->v);
    memcpy(&self->v.env, b.buf, sizeof self->v.env);
    memset(self->v.env.breakpoints, 0, sizeof self->v.env.breakpoints);
    self->v.env.cc_op = CC_OP_EFLAGS;
    self->v.env.old_exception = -1;
    self->v.fpu_changed = true;
    self->v.has_event = false;
    self->v.inside = false;
    PyBuffer_Release(&b);
    Py_RETURN_NONE;
}

static PyObject *vcpu_set_a20(PyObject *o, PyObject *arg)
{
    Vcpu *self = (Vcpu *)o;
    const int on = PyObject_IsTrue(arg);
    cpu_env *env = self->v.loaded ? self->v.loaded->env : &self->v.env;
    if (on < 0)
        return NULL;
    env->a20_mask = on ? -1 : ~(1 << 20);
    self->v.memory->epoch++; /* every address may now mean another one */
    vcpu_attention(&self->v);
    Py_RETURN_NONE;
}

static PyObject *vcpu_stop(PyObject *o, PyObject *unused)
{
    Vcpu *self = (Vcpu *)o;
    (void)unused;
    __atomic_store_n(&self->v.stop, true, __ATOMIC_RELEASE);
    vcpu_attention(&self->v);
    Py_RETURN_NONE;
}

static PyObject *vcpu_leave(PyObject *o, PyObject *unused)
{
    (void)unused;
    ((Vcpu *)o)->v.leave = true;
    Py_RETURN_NONE;
}

static PyObject *vcpu_shorten(PyObject *o, PyObject *arg)
{
    Vcpu *self = (Vcpu *)o;
    const uint64_t end = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred())
        return NULL;
    if (end < self->v.budget_end) {
        self->v.budget_end = end;
        vcpu_attention(&self->v);
    }
    Py_RETURN_NONE;
}

static PyObject *vcpu_raise_nmi(PyObject *o, PyObject *unused)
{
    Vcpu *self = (Vcpu *)o;
    (void)unused;
    self->v.nmi = true;
    vcpu_attention(&self->v);
    Py_RETURN_NONE;
}

static PyObject *vcpu_counters(PyObject *o, PyObject *unused)
{
    Vcpu *self = (Vcpu *)o;
    (void)unused;
    PyObject *d = PyDict_New();
    for (int i = 0; d && i < COUNTERS; i++) {
        PyObject *n = PyLong_FromUnsignedLongLong(self->v.counters[i]);
        if (!n || PyDict_SetItemString(d, counter_names[i], n) != 0)
            Py_CLEAR(d);
        Py_XDECREF(n);
    }
    return d;
}

static PyObject *vcpu_set_breakpoints(PyObject *o, PyObject *arg)
{
    Vcpu *self = (Vcpu *)o;
    if (refuse_running(self))
        return NULL;
    const Py_ssize_t n = PySequence_Size(arg);
    if (n < 0 || n > BREAKPOINTS) {
        if (n > BREAKPOINTS)
            PyErr_Format(PyExc_ValueError, "a vCPU has at most %d breakpoints", BREAKPOINTS);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PySequence_GetItem(arg, i);
        self->v.breakpoints[i] = item ? PyLong_AsUnsignedLongLongMask(item) : 0;
        Py_XDECREF(item);
        if (PyErr_Occurred())
            return NULL;
    }
    self->v.breakpoint_count = (unsigned)n;
    Py_RETURN_NONE;
}

static PyObject *vcpu_set_watchpoints(PyObject *o, PyObject *arg)
{
    Vcpu *self = (Vcpu *)o;
    if (refuse_running(self))
        return NULL;
    const Py_ssize_t n = PySequence_Size(arg);
    if (n < 0 || n > WATCHPOINTS) {
        if (n > WATCHPOINTS)
            PyErr_Format(PyExc_ValueError, "a vCPU has at most %d watchpoints", WATCHPOINTS);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        unsigned long long gpa, length;
        int read, write;
        PyObject *item = PySequence_GetItem(arg, i);
        if (!item || !PyArg_ParseTuple(item, "KKpp", &gpa, &length, &read, &write)) {
            Py_XDECREF(item);
            return NULL;
        }
        Py_DECREF(item);
        self->v.watchpoints[i] = (watchpoint){gpa, length, read, write};
    }
    self->v.watchpoint_count = (unsigned)n;
    Py_RETURN_NONE;
}

static PyObject *vcpu_set_trace(PyObject *o, PyObject *arg)
{
    Vcpu *self = (Vcpu *)o;
    const size_t size = PyLong_AsSize_t(arg);
    if (PyErr_Occurred() || refuse_running(self))
        return NULL;
    PyMem_Free(self->v.trace);
    self->v.trace = NULL;
    self->v.trace_size = self->v.trace_count = 0;
    if (size) {
        self->v.trace = size <= 1u << 24 ? PyMem_Calloc(size, sizeof(uint64_t)) : NULL;
        if (!self->v.trace)
            return PyErr_NoMemory();
        self->v.trace_size = size;
    }
    Py_RETURN_NONE;
}

static PyObject *vcpu_trace(PyObject *o, PyObject *unused)
{
    Vcpu *self = (Vcpu *)o;
    const vcpu *v = &self->v;
    (void)unused;
    const uint64_t n = v->trace_count < v->trace_size ? v->trace_count : v->trace_size;
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (uint64_t i = 0; list && i < n; i++) {
        PyObject *item = PyLong_FromUnsignedLongLong(v->trace[(v->trace_count - n + i) % v->trace_size]);
        if (!item)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, (Py_ssize_t)i, item);
    }
    return list;
}

static PyObject *get_access(PyObject *o, void *unused)
{
    const io_access *a = &((Vcpu *)o)->v.access;
    (void)unused;
    return Py_BuildValue("KKiOO", (unsigned long long)a->address, (unsigned long long)a->value, (int)a->size,
                         a->write ? Py_True : Py_False, a->mmio ? Py_True : Py_False);
}

static PyObject *get_error(PyObject *o, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(((Vcpu *)o)->v.error);
}

static PyObject *get_tsc(PyObject *o, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(vcpu_tsc(&((Vcpu *)o)->v));
}

static PyObject *get_steal_time(PyObject *o, void *unused)
{
    const vcpu *v = &((Vcpu *)o)->v;
    (void)unused;
    return PyLong_FromUnsignedLongLong((v->loaded ? v->loaded->env : &v->env)->steal_time);
}

static PyObject *get_interrupts_enabled(PyObject *o, void *unused)
{
    const vcpu *v = &((Vcpu *)o)->v;
    (void)unused;
    return PyBool_FromLong(((v->loaded ? v->loaded->env : &v->env)->eflags & FL_IF) != 0);
}

static PyObject *get_ready(PyObject *o, void *unused)
{
    (void)unused;
    return PyBool_FromLong(vcpu_ready(&((Vcpu *)o)->v));
}

static PyObject *get_interrupt(PyObject *o, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((Vcpu *)o)->v.interrupt);
}

static PyObject *get_event(PyObject *o, void *unused)
{
    const vcpu *v = &((Vcpu *)o)->v;
    (void)unused;
    if (!v->has_event)
        Py_RETURN_NONE;
    PyObject *error_code = v->event.has_error_code ? PyLong_FromUnsignedLong(v->event.error_code) : Py_NewRef(Py_None);
    return Py_BuildValue("iiNK", (int)v->event.vector, (int)v->event.kind, error_code,
                         (unsigned long long)v->event.instruction);
}

static int set_event(PyObject *o, PyObject *value, void *unused)
{
    Vcpu *self = (Vcpu *)o;
    unsigned char vector, kind;
    PyObject *error_code;
    unsigned long long instruction;
    (void)unused;
    if (refuse_running(self))
        return -1;
    self->v.has_event = false;
    self->v.inside = false;
    if (!value || value == Py_None)
        return 0;
    if (!PyTuple_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "an event is a tuple or None");
        return -1;
    }
    if (!PyArg_ParseTuple(value, "bbOK", &vector, &kind, &error_code, &instruction))
        return -1;
    if (kind > EVENT_ICEBP) {
        PyErr_Format(PyExc_ValueError, "an event's kind is 0 to %d, not %d", EVENT_ICEBP, kind);
        return -1;
    }
    self->v.event = (event){.vector = vector, .kind = (enum event_kind)kind, .instruction = instruction};
    if (error_code != Py_None) {
        self->v.event.has_error_code = true;
        self->v.event.error_code = (uint32_t)PyLong_AsUnsignedLongMask(error_code);
        if (PyErr_Occurred())
            return -1;
    }
    self->v.has_event = true;
    return 0;
}

static int set_interrupt(PyObject *o, PyObject *value, void *unused)
{
    Vcpu *self = (Vcpu *)o;
    const int level = value ? PyObject_IsTrue(value) : 0;
    (void)unused;
    if (level < 0)
        return -1;
    self->v.interrupt = level;
    if (level)
        vcpu_attention(&self->v);
    return 0;
}

static PyGetSetDef vcpu_getset[] = {
    {"interrupt", get_interrupt, set_interrupt, "the level of the INTR pin", NULL},
    {"event", get_event, set_event,
     "the event whose delivery has to be repeated: (vector, kind, error code | None, instruction), or None", NULL},
    {"interrupts_enabled", get_interrupts_enabled, NULL, "RFLAGS.IF", NULL},
    {"ready", get_ready, NULL, "it would run: it is not halted, or something waits that wakes it", NULL},
    {"access", get_access, NULL, "the last port or MMIO access: (address, value, size, write, mmio)", NULL},
    {"error", get_error, NULL, "what the engine said with EXIT_ERROR", NULL},
    {"tsc", get_tsc, NULL, "the guest's time stamp counter, in ns of guest time", NULL},
    {"steal_time", get_steal_time, NULL, "MSR_KVM_STEAL_TIME", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMemberDef vcpu_members[] = {
    {"work", T_ULONGLONG, offsetof(Vcpu, v.work), 0, "bytes of guest code retired"},
    {"idle_ns", T_ULONGLONG, offsetof(Vcpu, v.idle_ns), 0, "guest time that passed while halted"},
    {"pause_window", T_ULONGLONG, offsetof(Vcpu, v.pause_window), 0,
     "bytes of code that a loop around PAUSE may run before run returns; 0: as long as it likes"},
    {"pause_loop_start", T_ULONGLONG, offsetof(Vcpu, v.loop_start), 0, "the work at the first PAUSE of the last loop"},
    {"last_pause", T_ULONGLONG, offsetof(Vcpu, v.last_pause), 0, "the work at the last PAUSE"},
    {"spinning", T_BOOL, offsetof(Vcpu, v.spinning), 0, "a loop around PAUSE has lasted for the window"},
    {"inside_block", T_BOOL, offsetof(Vcpu, v.inside), 0,
     "the last run was held up within a block, whose rest comes before anything else; restore() forgets it"},
    {"tsc_origin", T_LONGLONG, offsetof(Vcpu, v.tsc_origin), 0, "CLOCK_MONOTONIC in ns at guest time 0"},
    {"host_clock", T_BOOL, offsetof(Vcpu, v.host_clock), 0, "RDTSC follows the host's clock"},
    {"halted", T_BOOL, offsetof(Vcpu, v.halted), 0, "waits for an interrupt"},
    {"nmi", T_BOOL, offsetof(Vcpu, v.nmi), 0, "an NMI waits"},
    {"running", T_BOOL, offsetof(Vcpu, v.running), READONLY, "inside Pcpu.run"},
    {"stop_address", T_ULONGLONG, offsetof(Vcpu, v.stop_address), READONLY, "of the breakpoint or watched byte"},
    {NULL, 0, 0, 0, NULL},
};
static PyMethodDef vcpu_methods[] = {
    {"save", vcpu_save, METH_NOARGS, "save() -> bytes: the engine's form of the state."},
    {"restore", vcpu_restore, METH_O, "restore(bytes)"},
    {"set_a20", vcpu_set_a20, METH_O, "set_a20(on)"},
    {"stop", vcpu_stop, METH_NOARGS, "stop(): make run return at the next block; any thread."},
    {"leave", vcpu_leave, METH_NOARGS, "leave(): from a port or MMIO handler, make run return behind this block."},
    {"shorten", vcpu_shorten, METH_O, "shorten(work): from a handler, let the present run end at this work already."},
    {"raise_nmi", vcpu_raise_nmi, METH_NOARGS, "raise_nmi()"},
    {"counters", vcpu_counters, METH_NOARGS, "counters() -> dict"},
    {"set_breakpoints", vcpu_set_breakpoints, METH_O, "set_breakpoints([linear address, ...])"},
    {"set_watchpoints", vcpu_set_watchpoints, METH_O, "set_watchpoints([(gpa, length, read, write), ...])"},
    {"set_trace", vcpu_set_trace, METH_O, "set_trace(n): remember the last n block addresses; 0 is off."},
    {"trace", vcpu_trace, METH_NOARGS, "trace() -> [linear block address, ...], oldest first."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot vcpu_slots[] = {
    {Py_tp_new, new_vcpu},
    {Py_tp_dealloc, vcpu_dealloc},
    {Py_tp_traverse, vcpu_traverse},
    {Py_tp_clear, vcpu_clear},
    {Py_tp_methods, vcpu_methods},
    {Py_tp_members, vcpu_members},
    {Py_tp_getset, vcpu_getset},
    {Py_tp_doc, "Vcpu(memory, handler): a guest's processor as state."},
    {0, NULL},
};
PyType_Spec vcpu_spec = {"emuvisor.cpu._core.Vcpu", sizeof(Vcpu), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, vcpu_slots};
