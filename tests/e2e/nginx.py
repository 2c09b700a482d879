"""Debian's nginx as a real origin: a tree of files, an access log that counts, no port to guess.

The listening socket is made here and handed over the way nginx hands sockets to its own successor (the variable
NGINX names the descriptors), so there is neither a race for a port nor a wait for readiness: a client that comes
before nginx is up waits in the backlog.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

CONFIG = """
daemon off;
{user}
worker_processes 1;
pid {base}/nginx.pid;
error_log {base}/error.log;
events {{ worker_connections 2048; }}
http {{
  types {{
    text/html html; text/css css; text/javascript js; image/svg+xml svg; image/png png; image/gif gif; text/plain txt;
    video/webm webm;
  }}
  default_type application/octet-stream;
  charset utf-8;
  log_format line '$status $request_method $request_uri';
  log_format octets '$body_bytes_sent $status $request_uri $http_range';
  access_log {base}/access.log line;
  client_body_temp_path {base}/t1; proxy_temp_path {base}/t2; fastcgi_temp_path {base}/t3;
  uwsgi_temp_path {base}/t4; scgi_temp_path {base}/t5;
  sendfile on;
  keepalive_requests 100000;
  # By default nginx compresses nothing for a request that carries Via.
  gzip on; gzip_proxied any; gzip_vary on; gzip_min_length 200;
  gzip_types text/css text/javascript image/svg+xml text/plain;
  server {{
    listen 127.0.0.1:{port};
    root {base}/www;
    location /doc/ {{ alias {doc}/; add_header Cache-Control "max-age=600"; }}
    location /site/ {{ add_header Cache-Control "max-age=600"; }}
    location /brief/ {{ alias {base}/www/site/; add_header Cache-Control "max-age=1"; }}
    location /never/ {{ alias {base}/www/site/; add_header Cache-Control "no-store"; }}
    location /big/ {{ add_header Cache-Control "max-age=600"; access_log {base}/octets.log octets; }}
    location = /favicon.ico {{ add_header Cache-Control "max-age=600" always; return 404; }}
    location /mark {{ return 204; }}
  }}
}}
"""


class Nginx:
    def __init__(self, base: Path, port: int) -> None:
        self.base = base
        self.url = f"http://127.0.0.1:{port}"
        self._log = base / "access.log"
        self._read = 0
        self._marks = 0

    async def sent(self, uri: str) -> list[tuple[int, str]]:
        """(octets of the body, range asked for) of each answer for this URI under /big/."""
        await self.asked()
        lines = [line.split(" ") for line in (self.base / "octets.log").read_text().splitlines()]
        return [(int(octets), asked) for octets, _, found, asked in lines if found == uri]

    async def asked(self) -> list[str]:
        """What was asked since the last call, as "200 GET /path", in order.

        One worker does one thing at a time and logs a request before it looks at the next: once a marker request has
        been answered, everything before it is in the log.
        """
        self._marks += 1
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/mark?{self._marks}") as answer:
            assert answer.status == 204
        lines = self._log.read_text().splitlines()
        new, self._read = lines[self._read :], len(lines)
        return [line for line in new if " /mark?" not in line]


@contextmanager
def nginx(program: str, base: Path, doc: Path) -> Iterator[Nginx]:
    (base / "www").mkdir(exist_ok=True)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        port = listener.getsockname()[1]
        # Workers give up root for a user who may not read a temporary directory: let them stay who they are.
        user = "user root;" if os.geteuid() == 0 else ""
        config = base / "nginx.conf"
        config.write_text(CONFIG.format(base=base, port=port, doc=doc, user=user))
        process = subprocess.Popen(
            [program, "-c", str(config), "-p", str(base)],
            env={**os.environ, "NGINX": f"{listener.fileno()};"},
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,
        )
    try:
        yield Nginx(base, port)
    finally:
        process.terminate()
        process.wait(20)
