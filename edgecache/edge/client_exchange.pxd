"""What a compiled `ClientExchange` holds: fields of a C struct instead of slots found by name."""

cdef class ClientExchange:
    cdef public object _body, _connection, _framing, _keep_alive, _left, _state
    cdef public object body, hsts, received_at, request, started_at, upgrade
