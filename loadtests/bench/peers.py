"""The caches edgecache is measured against, each configured as somebody who knows it would for this work.

What is the same for all: one worker, keep-alive without a limit that matters, an access log with a line per request,
idle connections to the origin kept, no revalidation or compression in play. Where a server's own default is worse
for it than a well-known setting, the setting is used; docs/benchmark.md lists them.
"""

import os

from .process import first_line, open_files
from .rows import Row, Work
from .server import MIB, Command, Kind, Launch, Setup, not_installed

_NGINX = """\
{user}
daemon off;
master_process on;
worker_processes {workers};
error_log {directory}/error.log warn;
pid {directory}/nginx.pid;
events {{ worker_connections 4096; multi_accept on; }}
http {{
  default_type application/octet-stream;
  log_format combined_cache '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
                            '"$http_referer" "$http_user_agent" $upstream_cache_status';
  access_log {log} combined_cache buffer=64k flush=1s;
{sending}  tcp_nodelay on;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
  open_file_cache max={open_files} inactive=300s;
  open_file_cache_valid 300s;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  proxy_cache_path {cache} levels=1:2 keys_zone=bench:64m max_size={memory_mib}m inactive=1d
                   use_temp_path=off;
  upstream origin {{
    server 127.0.0.1:{origin_port};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096 {reuseport};
    listen 127.0.0.1:{tls_port} ssl backlog=4096 {reuseport};
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.3;
    ssl_session_cache shared:tls:8m;
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_cache bench;
      proxy_cache_key $scheme$host$request_uri;
    }}
  }}
}}
"""


class Nginx:
    """nginx with proxy_cache; its files on tmpfs where there is one.

    On loopback sendfile loses to reading and writing: 10 against 14 µs of CPU at 1 KiB, 46 against 96 at 256 KiB, and
    about the same at 1 MiB.
    """

    name = "nginx"
    kind = Kind.CACHE
    forgets_memory = False
    settings = (
        "proxy_cache on tmpfs (disk rows: on the disk), sendfile off, output_buffers 1 1m, open_file_cache, buffered "
        "access log"
    )
    sending = "  sendfile off;\n  output_buffers 1 1m;\n"

    def missing(self) -> str | None:
        """It is one program."""
        return not_installed("nginx", "nginx-light")

    def version(self) -> str:
        """``nginx version: nginx/1.22.1``."""
        return first_line(["nginx", "-v"]).rpartition("/")[2]

    def leaves_out(self, row: Row) -> str | None:  # noqa: ARG002
        """It does everything."""
        return None

    def prepare(self, setup: Setup) -> Launch:
        """One file of configuration; started in the foreground with its master process."""
        cache = (setup.disk or setup.directory) / "cache"
        cache.mkdir()
        config = setup.directory / "nginx.conf"
        config.write_text(
            _NGINX.format(
                user="user root;" if os.geteuid() == 0 else "",
                workers=setup.workers,
                directory=setup.directory,
                cache=cache,
                sending=self.sending,
                log=setup.log,
                memory_mib=setup.memory_bytes // MIB,
                origin_port=setup.origin_port,
                open_files=min(200_000, open_files() // 2),
                port=setup.port,
                tls_port=setup.tls_port,
                certificate=setup.certificate,
                key=setup.key,
                reuseport="reuseport" if setup.workers > 1 else "",
            )
        )
        start = ("nginx", "-p", str(setup.directory), "-e", str(setup.directory / "error.log"), "-c", str(config))
        return Launch((Command(start, setup.directory / "output"),), setup.log, on_disk=cache)


class NginxSendfile(Nginx):
    """The same with sendfile, as its manual recommends for files: beside the other in the rows of the disk."""

    name = "nginx-sf"
    settings = "the same with sendfile on, sendfile_max_chunk 2m; in the disk rows only"
    sending = "  sendfile on;\n  sendfile_max_chunk 2m;\n"

    def leaves_out(self, row: Row) -> str | None:
        """What is in memory is not a file's."""
        return None if row.work is Work.DISK else "sendfile is for the disk rows"


_NO_DISK = "nothing of it is on a disk"

_VCL = """\
vcl 4.1;
backend origin {{ .host = "127.0.0.1"; .port = "{origin_port}"; .max_connections = 4096; }}
sub vcl_backend_response {{
  if (beresp.http.Cache-Control ~ "no-store") {{
    return (pass(120s));
  }}
}}
"""


class Varnish:
    """Varnish with malloc storage and the built-in VCL; varnishncsa writes its log and counts as part of it."""

    name = "varnish"
    kind = Kind.CACHE
    forgets_memory = False
    settings = "malloc storage, built-in VCL and hit-for-pass, varnishncsa as access log (its CPU and memory counted)"

    def missing(self) -> str | None:
        """It needs its log writer too, and compiles its VCL with a C compiler."""
        return not_installed("varnishd", "varnish") or not_installed("varnishncsa", "varnish")

    def version(self) -> str:
        """``varnishd (varnish-7.1.1 revision …)``."""
        return first_line(["varnishd", "-V"]).partition("varnish-")[2].split()[0]

    def leaves_out(self, row: Row) -> str | None:
        """It speaks no TLS by itself."""
        if row.work is Work.DISK:
            return _NO_DISK
        return "Varnish speaks no TLS by itself (hitch or another proxy would be measured with it)" if row.tls else None

    def prepare(self, setup: Setup) -> Launch:
        """A pool of threads per worker; threads enough that none is made while measuring."""
        vcl = setup.directory / "bench.vcl"
        vcl.write_text(_VCL.format(origin_port=setup.origin_port))
        workdir = setup.directory / "work"
        parameters = (
            f"thread_pools={setup.workers}",
            "thread_pool_min=200",
            "thread_pool_max=2000",
            "timeout_idle=300",
        )
        daemon = (
            *("varnishd", "-F", "-j", "none", "-n", str(workdir), "-a", f"127.0.0.1:{setup.port}"),
            *("-f", str(vcl), "-s", f"malloc,{setup.memory_bytes // MIB}m", "-T", "none", "-p", "listen_depth=4096"),
            *(argument for parameter in parameters for argument in ("-p", parameter)),
        )
        log = ("varnishncsa", "-n", str(workdir), "-a", "-w", str(setup.log), "-t", "10")
        output = setup.directory / "output"
        return Launch((Command(daemon, output), Command(log, output)), setup.log)


_HAPROXY = """\
global
  nbthread {workers}
  maxconn 4096
  log stdout len 512 format raw local0 info
  ssl-default-bind-options ssl-min-ver TLSv1.3
  tune.bufsize {buffer}
defaults
  mode http
  log global
  option httplog
  option http-keep-alive
  http-reuse always
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
  timeout connect 5s
  backlog 4096
cache bench
  total-max-size {memory_mib}
  max-object-size {largest}
  max-age 86400
frontend edge
  bind 127.0.0.1:{port}
  bind 127.0.0.1:{tls_port} ssl crt {both}
  http-request cache-use bench
  http-response cache-store bench
  default_backend origin
backend origin
  server origin 127.0.0.1:{origin_port} pool-max-conn 1024
"""


class Haproxy:
    """HAProxy with its small-object cache. Objects above half its memory, or without a length, it does not keep."""

    name = "haproxy"
    kind = Kind.CACHE
    forgets_memory = False
    settings = "cache with max-object-size 4 MiB (default total/256), httplog raw to a file, http-reuse always"

    def missing(self) -> str | None:
        """It is one program."""
        return not_installed("haproxy", "haproxy")

    def version(self) -> str:
        """``HAProxy version 2.6.12-1+deb12u4 2026/…``."""
        return first_line(["haproxy", "-v"]).removeprefix("HAProxy version ").split()[0]

    def leaves_out(self, row: Row) -> str | None:
        """It does everything but store on a disk."""
        return _NO_DISK if row.work is Work.DISK else None

    def prepare(self, setup: Setup) -> Launch:
        """In the foreground without a master; its log goes to its standard output, a file."""
        config = setup.directory / "haproxy.cfg"
        config.write_text(
            _HAPROXY.format(
                workers=setup.workers,
                buffer=65536,
                memory_mib=setup.memory_bytes // MIB,
                largest=4 * MIB,
                port=setup.port,
                tls_port=setup.tls_port,
                both=setup.certificate.parent / "both.pem",
                origin_port=setup.origin_port,
            )
        )
        return Launch((Command(("haproxy", "-db", "-f", str(config)), setup.log),), setup.log)
