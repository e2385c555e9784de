/* Stage2: a guest's second stage of address translation. */
#include "binding.h"

static bool call_fault(stage2 *s, uint64_t gfn, bool write)
{
    Stage2 *self = (Stage2 *)((char *)s - offsetof(Stage2, s));
    PyGILState_STATE gil = PyGILState_Ensure();
    bool ok = false;
    PyObject *r = PyObject_CallFunction(self->fault, "Ki", (unsigned long long)gfn, (int)write);
    if (r) {
        ok = PyObject_IsTrue(r) == 1;
        Py_DECREF(r);
    } else if (!self->failed) {
        self->failed = true;
        PyErr_Fetch(&self->error[0], &self->error[1], &self->error[2]);
    } else {
        PyErr_Clear();
    }
    PyGILState_Release(gil);
    return ok;
}

static PyObject *new_stage2(PyTypeObject *type, PyObject *args, PyObject *kw)
{
    static char *names[] = {"frames", "fault", NULL};
    PyObject *frames_object, *fault;
    if (!PyArg_ParseTupleAndKeywords(args, kw, "O!O", names, frames_type, &frames_object, &fault))
        return NULL;
    Stage2 *self = (Stage2 *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    stage2_init(&self->s, &((Frames *)frames_object)->f, call_fault);
    self->frames = Py_NewRef(frames_object);
    self->fault = Py_NewRef(fault);
    return (PyObject *)self;
}

static int stage2_traverse(PyObject *o, visitproc visit, void *arg)
{
    Py_VISIT(((Stage2 *)o)->fault);
    Py_VISIT(((Stage2 *)o)->frames);
    Py_VISIT(Py_TYPE(o));
    return 0;
}

static int stage2_clear(PyObject *o)
{
    Py_CLEAR(((Stage2 *)o)->fault);
    return 0;
}

static void stage2_dealloc(PyObject *o)
{
    Stage2 *self = (Stage2 *)o;
    PyTypeObject *type = Py_TYPE(o);
    PyObject_GC_UnTrack(o);
    for (unsigned i = 0; i < self->s.count; i++) {
        PyBuffer_Release(&self->entries[i]);
        if (self->has_dirty[i])
            PyBuffer_Release(&self->dirty[i]);
    }
    for (int i = 0; i < 3; i++)
        Py_XDECREF(self->error[i]);
    Py_XDECREF(self->fault);
    Py_XDECREF(self->frames);
    PyObject_GC_Del(o);
    Py_DECREF(type);
}

static PyObject *stage2_add_slot(PyObject *o, PyObject *args)
{
    Stage2 *self = (Stage2 *)o;
    unsigned long long first;
    Py_buffer entries;
    int movable = 0;
    if (!PyArg_ParseTuple(args, "Kw*|p", &first, &entries, &movable))
        return NULL;
    if (self->s.count == STAGE2_SLOTS) {
        PyBuffer_Release(&entries);
        PyErr_Format(PyExc_ValueError, "a guest has at most %d memory slots", STAGE2_SLOTS);
        return NULL;
    }
    self->entries[self->s.count] = entries;
    self->s.slots[self->s.count] = (memory_slot){
        .first = first, .count = (uint64_t)entries.len / sizeof(uint32_t), .entries = entries.buf, .movable = movable};
    self->s.count++;
    Py_RETURN_NONE;
}

static PyObject *stage2_move_slot(PyObject *o, PyObject *args)
{
    Stage2 *self = (Stage2 *)o;
    unsigned slot;
    unsigned long long first;
    if (!PyArg_ParseTuple(args, "IK", &slot, &first))
        return NULL;
    if (slot >= self->s.count || !self->s.slots[slot].movable) {
        PyErr_SetString(PyExc_ValueError, "no such movable memory slot");
        return NULL;
    }
    self->s.slots[slot].first = first;
    self->s.epoch++; /* what lay there, and what lies there now, is another frame */
    Py_RETURN_NONE;
}

static PyObject *stage2_set_log(PyObject *o, PyObject *args)
{
    Stage2 *self = (Stage2 *)o;
    unsigned slot;
    PyObject *log;
    Py_buffer dirty;
    if (!PyArg_ParseTuple(args, "IO", &slot, &log))
        return NULL;
    if (slot >= self->s.count) {
        PyErr_SetString(PyExc_ValueError, "no such memory slot");
        return NULL;
    }
    if (log != Py_None) {
        if (PyObject_GetBuffer(log, &dirty, PyBUF_WRITABLE) != 0)
            return NULL;
        if ((uint64_t)dirty.len != self->s.slots[slot].count) {
            PyBuffer_Release(&dirty);
            PyErr_SetString(PyExc_ValueError, "the dirty log needs one byte per frame of the slot");
            return NULL;
        }
    }
    if (self->has_dirty[slot])
        PyBuffer_Release(&self->dirty[slot]);
    self->has_dirty[slot] = log != Py_None;
    if (log != Py_None)
        self->dirty[slot] = dirty;
    self->s.slots[slot].dirty = log == Py_None ? NULL : dirty.buf;
    self->s.epoch++;
    Py_RETURN_NONE;
}

static PyObject *stage2_revoke(PyObject *o, PyObject *unused)
{
    (void)unused;
    ((Stage2 *)o)->s.epoch++;
    Py_RETURN_NONE;
}

static PyMethodDef stage2_methods[] = {
    {"add_slot", stage2_add_slot, METH_VARARGS,
     "add_slot(first_gfn, entries, movable=False): RAM with one uint32 entry per frame."},
    {"move_slot", stage2_move_slot, METH_VARARGS, "move_slot(slot, first_gfn): a movable slot begins there from now on."},
    {"set_log", stage2_set_log, METH_VARARGS, "set_log(slot, dirty | None): one byte per frame, set at the first write."},
    {"revoke", stage2_revoke, METH_NOARGS, "revoke(): an entry lost a right; no TLB may go on using the old one."},
    {NULL, NULL, 0, NULL},
};
static PyMemberDef stage2_members[] = {
    {"faults", T_ULONGLONG, offsetof(Stage2, s.faults), READONLY, "stage-2 faults so far"},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot stage2_slots[] = {
    {Py_tp_new, new_stage2},
    {Py_tp_dealloc, stage2_dealloc},
    {Py_tp_traverse, stage2_traverse},
    {Py_tp_clear, stage2_clear},
    {Py_tp_methods, stage2_methods},
    {Py_tp_members, stage2_members},
    {Py_tp_doc, "Stage2(frames, fault): a guest's second stage of address translation."},
    {0, NULL},
};
PyType_Spec stage2_spec = {"emuvisor.cpu._core.Stage2", sizeof(Stage2), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, stage2_slots};
