"""TLS towards clients, as a user sets it up: files, names, versions, sessions, renewal, HSTS, redirects."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.supervisor import kit


def make(folder: Path, name: str, *names: str, days: int = 90, kind: str = "ec") -> dict[str, str]:
    """A certificate for these DNS names, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-nodes", "-days", str(days), "-subj", f"/CN={name}"]
    command += ["-newkey", *(("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1") if kind == "ec" else ("rsa:2048",))]
    command += ["-addext", "subjectAltName=" + ",".join(f"DNS:{one}" for one in names)]
    subprocess.run([*command, "-out", cert, "-keyout", key], check=True, capture_output=True)
    return {"cert": str(cert), "key": str(key)}


@dataclass
class Setup:
    node: kit.Node
    origin: kit.Origin
    certificates: list[dict[str, str]]
    config: dict[str, Any]
    https: int
    http: int


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("tls")
    certificates = [
        make(folder, "first", "first.example", "shared.example"),
        make(folder, "second", "second.example", "shared.example", kind="rsa"),
        make(folder, "wild", "*.wild.example"),
    ]
    https = free_port()
    config = {
        "listen": [
            "127.0.0.1:0",
            {"address": f"127.0.0.1:{https}", "tls": {"certificates": certificates}},
        ],
        "workers": 2,
        "hsts": {"max_age": "1d", "include_subdomains": True},
        "forwarding": {"trusted_proxies": ["127.0.0.0/8"]},
    }
    with kit.origin() as origin:
        sites = [
            {"hosts": ["safe.example"], "origin": origin.url, "redirect_to_https": True},
            {"hosts": ["none.example"], "origin": origin.url, "hsts": None},
            {"origin": origin.url},
        ]
        config["sites"] = sites
        with kit.node(folder, config) as node:
            http = int(node.said(r"listening on http://\S+:(\d+)$")[1])
            assert int(node.said(r"listening on https://\S+:(\d+)$")[1]) == https
            yield Setup(node, origin, certificates, config, https, http)


def client(*, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def connect(port: int, name: str | None, context: ssl.SSLContext, session: Any = None) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", port), kit.PATIENCE_S)
    try:
        return context.wrap_socket(raw, server_hostname=name, session=session)
    except BaseException:
        raw.close()
        raise


def ask(connection: ssl.SSLSocket, path: str, host: str = "site") -> bytes:
    """The answer's head; its body is read too."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    assert not body or body == kit.body_of(path)
    return head


def shown(port: int, name: str | None) -> bytes:
    with connect(port, name, client()) as connection:
        found = connection.getpeercert(binary_form=True)
        assert found is not None
        return found


def der(certificate: dict[str, str]) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(certificate["cert"]).read_text())


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("first.example", 0),
        ("second.example", 1),
        ("SECOND.example", 1),
        ("shared.example", 0),
        ("a.wild.example", 2),
        ("a.b.wild.example", 0),
        ("wild.example", 0),
        ("unknown.example", 0),
        (None, 0),
    ],
)
def test_the_name_asked_for_chooses_the_certificate(tls: Setup, name: str | None, number: int) -> None:
    assert shown(tls.https, name) == der(tls.certificates[number])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_and_alpn(tls: Setup, version: ssl.TLSVersion) -> None:
    with connect(tls.https, "second.example", client(version=version)) as connection:
        assert connection.version() == version.name.replace("_", ".")
        assert connection.selected_alpn_protocol() == "http/1.1"
        assert ask(connection, "/versions").startswith(b"HTTP/1.1 200")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_older_versions_are_refused(tls: Setup) -> None:
    context = client(version=ssl.TLSVersion.TLSv1_1)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        connect(tls.https, "first.example", context)


@pytest.mark.parametrize("name", ["first.example", "second.example"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_by_every_worker(tls: Setup, version: ssl.TLSVersion, name: str) -> None:
    context = client(version=version)
    with connect(tls.https, name, context) as connection:
        assert not connection.session_reused
        ask(connection, "/session")  # in TLS 1.3 tickets come after the handshake
        session = connection.session
    reused = []
    for _ in range(12):
        with connect(tls.https, name, context, session) as connection:
            ask(connection, "/session")
            reused.append(connection.session_reused)
            session = connection.session
    assert all(reused)


def test_hsts_is_on_every_answer_over_tls(tls: Setup) -> None:
    line = b"Strict-Transport-Security: max-age=86400; includeSubDomains"
    with connect(tls.https, "first.example", client()) as connection:
        heads = [ask(connection, "/hsts") for _ in range(3)]
        heads += [ask(connection, "/pass")]
    assert b"; hit" in heads[2]
    for head in heads:
        assert [found for found in head.split(b"\r\n") if found.lower().startswith(b"strict-")] == [line]
    with connect(tls.https, "first.example", client()) as connection:
        for _ in range(3):
            assert b"strict-transport" not in ask(connection, "/none", "none.example").lower()
            assert b"Strict-Transport-Security: max-age=1\r\n" in ask(connection, "/hsts", "none.example")


async def plain(port: int, path: str, host: str, *more: str, method: str = "GET") -> list[str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = "".join(f"{line}\r\n" for line in more)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{lines}\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    writer.close()
    return head


async def test_hsts_is_not_said_over_plain_http(tls: Setup) -> None:
    for _ in range(3):
        assert not [line for line in await plain(tls.http, "/plain", "site") if line.lower().startswith("strict")]


@pytest.mark.parametrize(
    ("method", "status"),
    [("GET", "301 Moved Permanently"), ("HEAD", "301 Moved Permanently"), ("POST", "308 Permanent Redirect")],
)
async def test_plain_http_is_redirected(tls: Setup, method: str, status: str) -> None:
    head = await plain(tls.http, "/a/b?c=d", "safe.example:81", "Content-Length: 0", method=method)
    assert head[0] == f"HTTP/1.1 {status}"
    assert f"Location: https://safe.example:{tls.https}/a/b?c=d" in head
    assert "Cache-Status: edgecache; detail=https-required" in head


async def test_a_site_is_redirected_even_when_the_answer_is_stored(tls: Setup) -> None:
    proxied = "X-Forwarded-Proto: https"
    assert (await plain(tls.http, "/stored", "safe.example", proxied))[0] == "HTTP/1.1 200 OK"
    assert (await plain(tls.http, "/stored", "safe.example"))[0].startswith("HTTP/1.1 301")
    assert (await plain(tls.http, "/stored", "other.example"))[0] == "HTTP/1.1 200 OK"


def test_certificates_are_renewed_by_a_reload(tls: Setup, tmp_path: Path) -> None:
    before = shown(tls.https, "second.example")
    context = client(version=ssl.TLSVersion.TLSv1_3)
    with connect(tls.https, "second.example", context) as open_before:
        ask(open_before, "/before")
        fresh = make(tmp_path, "second", "second.example")
        for kind in ("cert", "key"):
            Path(tls.certificates[1][kind]).write_bytes(Path(fresh[kind]).read_bytes())
        tls.node.reload()
        assert shown(tls.https, "second.example") == der(fresh) != before
        assert b"200 OK" in ask(open_before, "/before")  # a connection that is open lives on, for this once


def test_a_bad_certificate_is_refused_and_the_old_one_kept(tls: Setup) -> None:
    file = Path(tls.certificates[2]["key"])
    good, number = file.read_text(), len(tls.node.messages)
    before = shown(tls.https, "a.wild.example")
    try:
        file.write_text(Path(tls.certificates[0]["key"]).read_text())
        refused = tls.node.stats()["processes"]["reloads_refused"]
        tls.node.signal(kit.signal.SIGHUP)
        tls.node.said("not taken over", number)
        text = "\n".join(tls.node.texts()[number:])
        assert "listen[1].tls.certificates[2].key" in text
        assert str(file) in text
        assert shown(tls.https, "a.wild.example") == before
        assert tls.node.stats()["processes"]["reloads_refused"] == refused + 1
    finally:
        file.write_text(good)
