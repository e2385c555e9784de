/* The Python face of the core: Frames, Stage2, Vcpu, Pcpu. Errors come as RuntimeError with a full message;
 * emuvisor.cpu turns them into EngineError. */
#include "binding.h"
#include "check.h"
#include "hooks.h"

PyTypeObject *frames_type, *stage2_type, *vcpu_type;
PyObject *pristine;

static PyObject *load_py(PyObject *self, PyObject *args)
{
    const char *path, *error;
    int short_code;
    (void)self;
    if (!PyArg_ParseTuple(args, "sp", &path, &short_code))
        return NULL;
    if (!pristine) {
        error = unicorn_load(path, short_code, translate_fast_fill);
        if (error) {
            PyErr_SetString(PyExc_RuntimeError, error);
            return NULL;
        }
        pristine = PyBytes_FromStringAndSize((const char *)&unicorn_pristine, sizeof unicorn_pristine);
        if (!pristine)
            return NULL;
    }
    return Py_BuildValue("(OO)", pristine, unicorn.short_code ? Py_True : Py_False);
}

static PyMethodDef module_methods[] = {
    {"load", load_py, METH_VARARGS,
     "load(path of libunicorn, short_code) -> (state of a new engine, whether loads and stores are short)"},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "emuvisor.cpu._core",
                                    "The C core: engines, address translation, event delivery.", -1,
                                    module_methods, NULL, NULL, NULL, NULL};

static int add_type(PyObject *m, const char *name, PyType_Spec *spec, PyTypeObject **kept)
{
    PyObject *type = PyType_FromSpec(spec);
    if (!type)
        return -1;
    if (kept)
        *kept = (PyTypeObject *)type;
    return PyModule_AddObjectRef(m, name, type);
}

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *m = PyModule_Create(&module);
    if (!m)
        return NULL;
    if (add_type(m, "Frames", &frames_spec, &frames_type) || add_type(m, "Stage2", &stage2_spec, &stage2_type)
        || add_type(m, "Vcpu", &vcpu_spec, &vcpu_type) || add_type(m, "Pcpu", &pcpu_spec, NULL)
        || PyModule_AddFunctions(m, check_methods) || PyModule_AddIntConstant(m, "STATE_SIZE", sizeof(cpu_env))) {
        Py_DECREF(m);
        return NULL;
    }
    return m;
}
