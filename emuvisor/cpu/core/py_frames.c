/* Frames: the frame pool as the engines see it. */
#include "binding.h"

static PyObject *new_frames(PyTypeObject *type, PyObject *args, PyObject *kw)
{
    static char *names[] = {"memory", "fetched", NULL};
    Py_buffer memory, fetched;
    if (!PyArg_ParseTupleAndKeywords(args, kw, "w*w*", names, &memory, &fetched))
        return NULL;
    Frames *self = (Frames *)PyType_GenericAlloc(type, 0);
    if (!self || memory.len % PAGE_SIZE || fetched.len != (Py_ssize_t)(memory.len / PAGE_SIZE * sizeof(uint32_t))) {
        PyBuffer_Release(&memory);
        PyBuffer_Release(&fetched);
        Py_XDECREF((PyObject *)self);
        if (self)
            PyErr_SetString(PyExc_ValueError, "memory must be whole pages, with one uint32 of fetched for each");
        return NULL;
    }
    self->memory = memory;
    self->fetched = fetched;
    self->f.base = memory.buf;
    self->f.count = (uint32_t)(memory.len / PAGE_SIZE);
    self->f.fetched = fetched.buf;
    pthread_mutex_init(&self->f.lock, NULL);
    return (PyObject *)self;
}

static void frames_dealloc(PyObject *o)
{
    Frames *self = (Frames *)o;
    PyTypeObject *type = Py_TYPE(o);
    if (self->f.base) {
        PyBuffer_Release(&self->memory);
        PyBuffer_Release(&self->fetched);
        pthread_mutex_destroy(&self->f.lock);
    }
    PyObject_Free(o);
    Py_DECREF(type);
}

static PyObject *frames_changed_py(PyObject *o, PyObject *args)
{
    Frames *self = (Frames *)o;
    unsigned frame, offset, length;
    if (!PyArg_ParseTuple(args, "III", &frame, &offset, &length))
        return NULL;
    if (frame >= self->f.count || offset > PAGE_SIZE || length > PAGE_SIZE - offset) {
        PyErr_SetString(PyExc_ValueError, "no such bytes of the pool");
        return NULL;
    }
    frames_changed(&self->f, frame, offset, length, -1);
    Py_RETURN_NONE;
}

static PyMethodDef frames_methods[] = {
    {"changed", frames_changed_py, METH_VARARGS,
     "changed(frame, offset, length): drop all translations of these bytes before anyone runs them."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot frames_slots[] = {
    {Py_tp_new, new_frames},
    {Py_tp_dealloc, frames_dealloc},
    {Py_tp_methods, frames_methods},
    {Py_tp_doc, "Frames(memory, fetched): the frame pool as the engines see it."},
    {0, NULL},
};
PyType_Spec frames_spec = {"emuvisor.cpu._core.Frames", sizeof(Frames), 0, Py_TPFLAGS_DEFAULT, frames_slots};
