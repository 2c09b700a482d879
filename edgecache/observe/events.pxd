"""Records that every request makes, where they are compiled: fields of C structs, filled without Python."""

cdef class ExchangeFinished:
    cdef public object time, site, client_ip, method, scheme, host, target, protocol, status, bytes_in
    cdef public object bytes_out, outcome, reason, duration_s, ttfb_s, origin_s, cache_status, user_agent
    cdef public object referer, request_id, aborted
