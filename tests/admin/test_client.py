"""What the command line's client makes of whatever answers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgecache.admin.client import AdminClient, ClientError


@contextmanager
def answering(data: bytes | None) -> Iterator[str]:
    """A socket that answers one connection with these octets; None: with silence."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                if data is None:
                    done.wait(10)
                else:
                    connection.sendall(data)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        done.set()
        thread.join(10)


def response(status: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", "is no edge", id="closed"),
        pytest.param(b"SSH-2.0-x\r\n", "is no edge", id="another-protocol"),
        pytest.param(response("200 OK", b"<html>", "text/html"), "is no edge's admin API", id="a-web-server"),
        pytest.param(response("404 Not Found", b"<html>", "text/html"), "status 404", id="a-web-server-404"),
        pytest.param(response("200 OK", b"[]"), "is no edge's admin API", id="another-api"),
        pytest.param(response("404 Not Found", b'{"error": "x"}'), "is no edge's admin API", id="another-api-404"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "is no edge", id="cut-off"),
        pytest.param(
            response("400 Bad Request", b'{"error": {"code": "x", "message": "no", "path": "urls[1]"}}'),
            "urls[1]: no",
            id="refused",
        ),
        pytest.param(response("500 x", b'{"error": {"code": "x", "message": "oops", "path": ""}}'), "oops", id="bug"),
        pytest.param(None, "did not answer within", id="silence"),
    ],
)
def test_an_answer_that_is_none_is_one_line(data: bytes | None, words: str) -> None:
    with answering(data) as url:
        with pytest.raises(ClientError) as caught:
            AdminClient(url, None, timeout_s=0.5 if data is None else 10).stats()
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_host_that_is_not_there() -> None:
    with pytest.raises(ClientError, match=r"cannot reach http://nowhere\.invalid"):
        AdminClient("http://nowhere.invalid", None).stats()


def test_https_to_something_that_does_not_speak_it() -> None:
    with (
        answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url,
        pytest.raises(ClientError, match="no secure connection"),
    ):
        AdminClient(url.replace("http:", "https:"), None).stats()


def test_a_password_in_the_url_is_not_shown() -> None:
    with pytest.raises(ClientError) as caught:
        AdminClient("http://user:s3cret@127.0.0.1:1", None).stats()
    assert "s3cret" not in str(caught.value)
