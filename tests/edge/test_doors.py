"""Listening sockets that outlive whoever accepts on them, and close without a reset connection."""

import contextlib
import errno
import socket
from collections.abc import Iterator

import pytest

from edgecache.config.model import Config
from edgecache.edge.doors import DoorError, DoorKeeper
from edgecache.http.sockets import bind, hush, taken


@pytest.fixture
def keeper() -> Iterator[DoorKeeper]:
    made = DoorKeeper(share=True)
    yield made
    made.close()


def config(*listen: str, admin: str = "127.0.0.1:0") -> Config:
    return Config.model_validate({"origin": "http://o", "listen": list(listen), "admin": {"address": admin}})


def test_each_worker_has_a_socket_for_each_address(keeper: DoorKeeper) -> None:
    doors = keeper.open(config("127.0.0.1:0", "127.0.0.1:0"), 3)
    assert len(doors.public) == 3
    ports = [[door.getsockname()[1] for door in row] for row in doors.public]
    assert ports[0] == ports[1] == ports[2]
    assert len(set(ports[0])) == 2, "asked for twice, two ports"
    assert [address.port for address in doors.addresses()] == ports[0]


def test_the_next_configuration_keeps_what_is_open(keeper: DoorKeeper) -> None:
    first = keeper.open(config("127.0.0.1:0"), 2)
    more = keeper.open(config("127.0.0.1:0", "[::1]:0"), 3)
    assert [row[0] for row in more.public[:2]] == [row[0] for row in first.public]
    assert more.admin is first.admin
    fewer = keeper.open(config("[::1]:0"), 1)
    keeper.keep_only(fewer)
    assert fewer.public[0][0] is more.public[0][1]
    assert all(door.fileno() < 0 for door in more.all() - fewer.all())
    assert all(door.fileno() >= 0 for door in fewer.all())


def test_an_address_that_cannot_be_had_leaves_nothing_new(keeper: DoorKeeper) -> None:
    first = keeper.open(config("127.0.0.1:0"), 2)
    with pytest.raises(DoorError, match=r"^listen 192\.0\.2\.1:80: "):
        keeper.open(config("127.0.0.1:0", "127.0.0.2:0", "192.0.2.1:80"), 4)
    assert all(door.fileno() >= 0 for door in first.all())
    again = keeper.open(config("127.0.0.1:0"), 2)
    assert again.all() == first.all()


@pytest.mark.parametrize("share", [False, True])
def test_an_address_of_somebody_else_is_refused(share: bool) -> None:
    with contextlib.closing(bind("127.0.0.1", 0, share=True)) as other:
        other.listen(1)
        port = other.getsockname()[1]
        assert taken("127.0.0.1", port)
        with pytest.raises(DoorError, match="Address already in use"):
            DoorKeeper(share=share).open(config(f"127.0.0.1:{port}"), 1)


def test_a_hushed_socket_gives_what_it_has_and_takes_no_more() -> None:
    with contextlib.closing(bind("127.0.0.1", 0)) as door:
        door.listen(8)
        address = door.getsockname()
        waiting = [socket.create_connection(address, 5) for _ in range(3)]
        waiting[0].sendall(b"before")
        hush(door)
        waiting[1].sendall(b"after")
        with socket.socket() as late:
            late.setblocking(False)
            assert late.connect_ex(address) == errno.EINPROGRESS
            accepted = [door.accept()[0] for _ in range(3)]
            with pytest.raises(BlockingIOError):
                door.accept()
            assert (accepted[0].recv(9), accepted[1].recv(9)) == (b"before", b"after")
            accepted[2].sendall(b"answer")
            assert waiting[2].recv(9) == b"answer"
        for one in (*waiting, *accepted):
            one.close()


@pytest.mark.parametrize(
    ("host", "clients"), [("", ["127.0.0.1", "::1"]), ("127.0.0.1", ["127.0.0.1"]), ("::1", ["::1"])]
)
def test_what_an_address_covers(host: str, clients: list[str]) -> None:
    with contextlib.closing(bind(host, 0)) as door:
        door.listen(8)
        for client in clients:
            socket.create_connection((client, door.getsockname()[1]), 5).close()
