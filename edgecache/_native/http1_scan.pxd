"""The C scanners of ext/http1_scan.h. A module that cimports them calls `h1_init` once, at import."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef extern from "http1_scan.h" nogil:
    enum:
        H1_TOKEN, H1_TARGET
        H1_F_OTHER, H1_F_CONTENT_LENGTH, H1_F_TRANSFER_ENCODING, H1_F_HOST, H1_F_CONNECTION, H1_F_EXPECT
        H1_F_UPGRADE, H1_F_NOT_TRAILER
        H1_CLOSE, H1_KEEP_ALIVE, H1_UPGRADE
        H1_TE_SEEN, H1_TE_CHUNKED, H1_TE_LAST, H1_TE_AGAIN, H1_TE_OTHER, H1_TE_BAD
    const uint8_t H1_CLASS[256]
    void h1_init()
    bint h1_ows(uint8_t c)
    bint h1_is_token(const uint8_t* p, size_t n)
    int h1_check_value(const uint8_t* p, size_t n)
    bint h1_same(const uint8_t* p, size_t n, const char* word, size_t word_n)
    int h1_field(const uint8_t* p, size_t n)
    uint32_t h1_hash(const uint8_t* p, size_t n)
    int h1_length(const uint8_t* p, size_t n, int64_t* length)
    int h1_options(const uint8_t* p, size_t n)
    int h1_codings(const uint8_t* p, size_t n, int state)
    bint h1_authority(const uint8_t* p, size_t n, bint port_needed)
    bint h1_chunk_line(const uint8_t* p, size_t n, int64_t* size, size_t* extension)
