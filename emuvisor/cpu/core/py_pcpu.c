/* Pcpu: an engine. */
#include "binding.h"

typedef struct {
    PyObject_HEAD
    pcpu p;
    PyObject *frames;
    bool busy;
} Pcpu;

static PyObject *new_pcpu(PyTypeObject *type, PyObject *args, PyObject *kw)
{
    static char *names[] = {"frames", "cpu_model", NULL};
    PyObject *frames_object;
    int model = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kw, "O!|i", names, frames_type, &frames_object, &model))
        return NULL;
    if (!pristine) {
        PyErr_SetString(PyExc_RuntimeError, "load() has not been called");
        return NULL;
    }
    Pcpu *self = (Pcpu *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    const char *error;
    Py_BEGIN_ALLOW_THREADS /* it takes a millisecond */
    error = pcpu_open(&self->p, &((Frames *)frames_object)->f, model);
    Py_END_ALLOW_THREADS
    if (error) {
        PyErr_SetString(PyExc_RuntimeError, error);
        self->p.engine = NULL;
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    self->frames = Py_NewRef(frames_object);
    return (PyObject *)self;
}

static void pcpu_dealloc(PyObject *o)
{
    Pcpu *self = (Pcpu *)o;
    PyTypeObject *type = Py_TYPE(o);
    if (self->frames)
        pcpu_close(&self->p);
    Py_XDECREF(self->frames);
    PyObject_Free(o);
    Py_DECREF(type);
}

static PyObject *raise_kept(PyObject *error[3])
{
    PyErr_Restore(error[0], error[1], error[2]);
    error[0] = error[1] = error[2] = NULL;
    return NULL;
}

static PyObject *pcpu_run_py(PyObject *o, PyObject *args)
{
    Pcpu *self = (Pcpu *)o;
    Vcpu *v;
    unsigned long long budget;
    enum exit_reason reason;
    if (!PyArg_ParseTuple(args, "O!K", vcpu_type, &v, &budget))
        return NULL;
    if (self->busy || v->v.running) {
        PyErr_SetString(PyExc_RuntimeError, self->busy ? "the pCPU is running" : "the vCPU is running");
        return NULL;
    }
    Stage2 *memory = (Stage2 *)v->memory;
    if (memory->s.loaded && memory->s.loaded->running) {
        PyErr_SetString(PyExc_RuntimeError, "another vCPU of the guest is running");
        return NULL;
    }
    self->busy = true;
    Py_INCREF((PyObject *)v);
    pcpu_load(&self->p, &v->v);
    Py_BEGIN_ALLOW_THREADS
    reason = pcpu_run(&self->p, budget);
    Py_END_ALLOW_THREADS
    self->busy = false;
    PyObject *result = NULL;
    if (v->error[0]) {
        v->v.failed = false; /* when a refused translation came right behind it, nobody has looked yet */
        raise_kept(v->error);
    } else if (memory->failed) {
        memory->failed = false;
        raise_kept(memory->error);
    } else
        result = PyLong_FromLong(reason);
    Py_DECREF((PyObject *)v);
    return result;
}

static PyObject *pcpu_unload_py(PyObject *o, PyObject *unused)
{
    Pcpu *self = (Pcpu *)o;
    (void)unused;
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "the pCPU is running");
        return NULL;
    }
    if (self->p.vcpu)
        vcpu_unload(self->p.vcpu);
    Py_RETURN_NONE;
}

static PyMethodDef pcpu_methods[] = {
    {"run", pcpu_run_py, METH_VARARGS, "run(vcpu, budget) -> exit reason"},
    {"unload", pcpu_unload_py, METH_NOARGS, "unload(): let go of the vCPU that was run last."},
    {NULL, NULL, 0, NULL},
};
static PyMemberDef pcpu_members[] = {
    {"index", T_UINT, offsetof(Pcpu, p.index), READONLY, "its number in the pool"},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot pcpu_slots[] = {
    {Py_tp_new, new_pcpu},
    {Py_tp_dealloc, pcpu_dealloc},
    {Py_tp_methods, pcpu_methods},
    {Py_tp_members, pcpu_members},
    {Py_tp_doc, "Pcpu(frames, cpu_model=-1): an engine."},
    {0, NULL},
};
PyType_Spec pcpu_spec = {"emuvisor.cpu._core.Pcpu", sizeof(Pcpu), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, pcpu_slots};
