"""Octets to str without waste: the table of known names, and str made from octets already checked."""

from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    str PyUnicode_New(Py_ssize_t size, uint32_t maxchar)
    void* PyUnicode_DATA(object text)
    int PyUnicode_KIND(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int PyUnicode_1BYTE_KIND


cdef struct Known:
    PyObject* text  # never released
    const uint8_t* octets
    Py_ssize_t n
    int field  # H1_F_*


cdef Known* known(const uint8_t* p, Py_ssize_t n) noexcept


cdef inline str ascii_text(const uint8_t* p, Py_ssize_t n):
    cdef str text = PyUnicode_New(n, 127)
    memcpy(PyUnicode_DATA(text), p, n)
    return text


cdef inline str latin1_text(const uint8_t* p, Py_ssize_t n):
    return PyUnicode_DecodeLatin1(<const char*> p, n, NULL)
