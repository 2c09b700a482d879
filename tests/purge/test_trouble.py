"""What an edge says where it does not reach its coordinator: one line, the same each time, with where to look."""

import errno
import ssl
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from edgecache.purge.transport.trouble import trouble
from edgecache.purge.transport.websocket import client_context

KEY: Any = ConnectionKey("purge.internal", 8090, True, ssl.create_default_context(), None, None, None)


def distrust(code: int, message: str) -> aiohttp.ClientConnectorCertificateError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return aiohttp.ClientConnectorCertificateError(KEY, error)


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] and so on (_ssl.c:1006)")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "said", "remedy"),
    [
        pytest.param(distrust(19, "self-signed certificate in chain"), "not trusted: self-signed", "ca_file", id="ca"),
        pytest.param(distrust(10, "certificate has expired"), "has expired", "renew", id="expired"),
        pytest.param(distrust(62, "Hostname mismatch, for 'a'."), "Hostname mismatch", "must name it", id="name"),
        pytest.param(distrust(64, "IP address mismatch, for '::1'."), "IP address", "must name it", id="address"),
        pytest.param(
            aiohttp.ClientConnectorSSLError(KEY, alert("WRONG_VERSION_NUMBER")),
            "WRONG_VERSION_NUMBER",
            "does it speak TLS",
            id="no-tls-there",
        ),
        pytest.param(
            aiohttp.ClientConnectorError(KEY, ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed (…)")),
            "nobody answers at purge.internal:8090: Connection refused",
            "",
            id="refused",
        ),
        pytest.param(aiohttp.ServerDisconnectedError(), "ended the connection", "client_ca", id="dropped"),
        pytest.param(
            aiohttp.ClientOSError(errno.ECONNRESET, "reset by somebody"), "Connection reset", "client_ca", id="reset"
        ),
        pytest.param(RuntimeError("odd"), "RuntimeError: odd", "", id="anything-else"),
        pytest.param(RuntimeError(), "RuntimeError", "", id="without-words"),
    ],
)
def test_it_says_where_to_look(error: Exception, said: str, remedy: str) -> None:
    text = trouble(error, tls=True)
    assert said in text
    assert remedy in text
    assert " at 0x" not in text
    assert "\n" not in text


def test_a_coordinator_that_speaks_tls_is_guessed() -> None:
    assert "https://" in trouble(aiohttp.ServerDisconnectedError(), tls=False)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param(("/nowhere/ca.pem", None, None), r"ca_file, /nowhere/ca\.pem, .*No such file", id="no-ca"),
        pytest.param((__file__, None, None), "ca_file, .*no certificate", id="ca-is-none"),
        pytest.param((None, "/nowhere/edge.pem", None), r"cert, /nowhere/edge\.pem, .*No such file", id="no-cert"),
        pytest.param((None, __file__, "/x.key"), r"cert, .* with tls\.key, /x\.key", id="cert-is-none"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(files: tuple[str | None, str | None, str | None], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        client_context(*files)
