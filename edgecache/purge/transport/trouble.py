"""What keeps an edge from its coordinator, in one line that says where to look.

The same trouble is told in the same words each time: who logs it does so once, not with each attempt.
"""

import os
import ssl
from typing import Final

import aiohttp

_NAMES: Final = {62, 64}
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and …IP_ADDRESS_MISMATCH."""
_TIMES: Final = {9, 10}
"""…CERT_NOT_YET_VALID and …CERT_HAS_EXPIRED."""


def trouble(error: BaseException, *, tls: bool) -> str:
    """`tls`: the URL is https."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return _distrust(error.certificate_error)
        case aiohttp.ClientSSLError():
            reason = getattr(error.os_error, "reason", None) or str(error.os_error)
            return f"no secure connection to the coordinator: {reason}; does it speak TLS (coordinator.tls)?"
        case aiohttp.ClientConnectorError():
            return f"nobody answers at {error.host}:{error.port}: {_system(error.os_error)}"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return _dropped(error, tls=tls)
        case _:
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _distrust(error: Exception) -> str:
    why = getattr(error, "verify_message", "") or str(error)
    match getattr(error, "verify_code", 0):
        case code if code in _NAMES:
            remedy = "purge.coordinator must name it as its certificate does"
        case code if code in _TIMES:
            remedy = "renew coordinator.tls.cert and send the coordinator SIGHUP; or is a clock wrong?"
        case _:
            remedy = "purge.tls.ca_file names the authority to trust"
    return f"no secure connection to the coordinator: its certificate is not trusted: {why.rstrip('.')}; {remedy}"


def _dropped(error: Exception, *, tls: bool) -> str:
    """With TLS 1.3 a server looks at a client's certificate when the client has already written its request, and what
    it says of it may be lost."""
    said = getattr(error, "reason", None) or (_system(error) if isinstance(error, OSError) else "")
    what = "the coordinator ended the connection before it answered" + (f" ({said})" if said else "")
    if tls:
        return f"{what}; if again and again: does its client_ca trust this edge's purge.tls.cert? Its log may say why"
    return f"{what}; if again and again: does it speak TLS? Then purge.coordinator begins with https://"


def _system(error: OSError) -> str:
    """Without what asyncio adds, such as addresses of objects."""
    return os.strerror(error.errno) if error.errno and not isinstance(error, ssl.SSLError) else str(error)
