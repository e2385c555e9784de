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

static void let_go(ByteMap *map)
{
    if (map->held)
        PyBuffer_Release(&map->buffer);
    map->held = false;
}

static void stage2_dealloc(PyObject *o)
{
    Stage2 *self = (Stage2 *)o;
    PyTypeObject *type = Py_TYPE(o);
    PyObject_GC_UnTrack(o);
    for (unsigned i = 0; i < self->s.count; i++) {
        PyBuffer_Release(&self->entries[i]);
        let_go(&self->dirty[i]);
        let_go(&self->accessed[i]);
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

/* (slot, bytes | None): `maps` keeps the bytes; returns the slot, NULL with an exception. */
static memory_slot *set_map(Stage2 *self, PyObject *args, ByteMap maps[STAGE2_SLOTS], const char *what, uint8_t **bytes)
{
    unsigned slot;
    PyObject *object;
    Py_buffer buffer;
    if (!PyArg_ParseTuple(args, "IO", &slot, &object))
        return NULL;
    if (slot >= self->s.count) {
        PyErr_SetString(PyExc_ValueError, "no such memory slot");
        return NULL;
    }
    if (object != Py_None) {
        if (PyObject_GetBuffer(object, &buffer, PyBUF_WRITABLE) != 0)
            return NULL;
        if ((uint64_t)buffer.len != self->s.slots[slot].count) {
            PyBuffer_Release(&buffer);
            PyErr_Format(PyExc_ValueError, "the %s needs one byte per frame of the slot", what);
            return NULL;
        }
    }
    let_go(&maps[slot]);
    if (object != Py_None)
        maps[slot] = (ByteMap){buffer, true};
    *bytes = object == Py_None ? NULL : buffer.buf;
    self->s.epoch++; /* what a TLB holds was not noted there */
    return &self->s.slots[slot];
}

static PyObject *stage2_set_log(PyObject *o, PyObject *args)
{
    uint8_t *bytes;
    memory_slot *slot = set_map((Stage2 *)o, args, ((Stage2 *)o)->dirty, "dirty log", &bytes);
    if (!slot)
        return NULL;
    slot->dirty = bytes;
    Py_RETURN_NONE;
}

static PyObject *stage2_set_sampling(PyObject *o, PyObject *args)
{
    uint8_t *bytes;
    memory_slot *slot = set_map((Stage2 *)o, args, ((Stage2 *)o)->accessed, "access sample", &bytes);
    if (!slot)
        return NULL;
    slot->accessed = bytes;
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
    {"set_sampling", stage2_set_sampling, METH_VARARGS,
     "set_sampling(slot, accessed | None): one byte per frame, set at each TLB fill."},
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
