from edgecache._native.layout cimport View


cdef char *mapping_create(dict plan) except NULL
cdef int view_open(View *view, char *base) except -1
cdef void view_close(View *view) noexcept
