"""NATS credentials as an operator's tools make them: tokens signed with nkeys, for a server and for a user of it."""

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import nkeys

_UNLIMITED = dict.fromkeys(
    (
        "subs",
        "data",
        "payload",
        "imports",
        "exports",
        "conn",
        "leaf",
        "mem_storage",
        "disk_storage",
        "streams",
        "consumer",
    ),
    -1,
)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _pair(prefix: int) -> tuple[nkeys.KeyPair, bytes]:
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    return nkeys.from_seed(bytearray(seed)), bytes(seed)


def _signed(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, what: dict[str, Any]) -> str:
    claims = {
        "jti": "",
        "iat": int(time.monotonic()),
        "iss": issuer.public_key.decode(),
        "name": "test",
        "sub": subject.public_key.decode(),
        "nats": {"version": 2, **what},
    }
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).rstrip(b"=").decode()
    head = _text(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode()) + "." + _text(json.dumps(claims).encode())
    return head + "." + _text(issuer.sign(head.encode()))


def credentials(folder: Path) -> tuple[str, Path]:
    """What a server's configuration holds, and the file of a user that may use JetStream there."""
    operator, _ = _pair(nkeys.PREFIX_BYTE_OPERATOR)
    account, _ = _pair(nkeys.PREFIX_BYTE_ACCOUNT)
    system, _ = _pair(nkeys.PREFIX_BYTE_ACCOUNT)
    user, seed = _pair(nkeys.PREFIX_BYTE_USER)
    limits = {"type": "account", "limits": {"wildcards": True, **_UNLIMITED}}
    plain = {"type": "account", "limits": {"wildcards": True, **_UNLIMITED, "mem_storage": 0, "disk_storage": 0}}
    config = (
        f"operator: {_signed(operator, operator, {'type': 'operator'})}\n"
        f"system_account: {system.public_key.decode()}\n"
        "resolver: MEMORY\n"
        "resolver_preload: {\n"
        f"  {account.public_key.decode()}: {_signed(operator, account, limits)}\n"
        f"  {system.public_key.decode()}: {_signed(operator, system, plain)}\n"
        "}\n"
    )
    token = _signed(account, user, {"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1})
    file = folder / "user.creds"
    file.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed.decode()}\n------END USER NKEY SEED------\n"
    )
    return config, file
