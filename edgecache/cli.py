"""The `edgecache` command. Arguments only: parse, call, print.

Exit status: 0 done, 1 it did not work, 2 the command line or the configuration is wrong. What only some commands
need is imported there: `edgecache purge` in a deployment script should not wait for what a server needs.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from edgecache import __version__, report
from edgecache.admin import tokens
from edgecache.admin.client import AdminClient, ClientError

DEFAULT_TO = "http://127.0.0.1:8081"
_WATCH_S = 1.0

if TYPE_CHECKING:
    from edgecache.config.coordinator import CoordinatorFile
    from edgecache.config.load import Loaded, Override
    from edgecache.config.load_coordinator import LoadedCoordinator
    from edgecache.config.load_geodns import LoadedGeo
    from edgecache.config.model import Config

    L = TypeVar("L", Loaded, LoadedCoordinator, LoadedGeo)

F = TypeVar("F", bound=Callable[..., Any])


def _setting(path: str, text: str, default: str | None) -> str:
    """Help for an option that is a configuration key too."""
    variable = f"EDGECACHE_{path.replace('.', '_').upper()}"
    tail = f"; default: {default}" if default else ""
    return f"{text}  [key: {path}; env: {variable}{tail}]"


def _fail(message: str, status: int = 1) -> NoReturn:
    click.echo(f"edgecache: {message}", err=True)
    sys.exit(status)


def _read(file: Path | None, given: dict[str, object], *, environment: bool) -> "Loaded":
    """`given`: values from the command line by the key's path. Raises `ConfigError`."""
    from edgecache.config.load import load

    return load(file, environ=os.environ if environment else {}, overrides=_overrides(given))


def _overrides(given: dict[str, object]) -> "list[Override]":
    from edgecache.config.load import Override

    return [
        Override(tuple(path.split(".")), value, f"--{_option(path)}")
        for path, value in given.items()
        if value is not None
    ]


def _option(path: str) -> str:
    """The option that sets this key."""
    name = path.removeprefix("coordinator.").partition(".")[0]
    return "bus" if name == "nats" else name


def _load(file: Path | None, given: dict[str, object], *, environment: bool) -> "Config":
    """The same; what is wrong is printed and ends the command."""
    return _usable(lambda: _read(file, given, environment=environment)).config


def _usable(read: "Callable[[], L]") -> "L":
    """What was read; what is wrong with it is printed and ends the command."""
    from edgecache.config.load import ConfigError

    try:
        loaded = read()
    except ConfigError as error:
        report.console(stderr=True).print(report.problems(error.problems))
        number = len(error.problems)
        _fail(f"the configuration cannot be used: {number} problem{'s' if number > 1 else ''}", 2)
    for warning in loaded.warnings:
        click.echo(f"edgecache: {warning}", err=True)
    return loaded


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="edgecache", message="%(prog)s %(version)s")
def cli() -> None:
    """A CDN edge cache in a box: a caching reverse proxy with purging by surrogate key.

    Start one in front of a site, and look at it:

    \b
      edgecache serve --origin http://127.0.0.1:8000
      curl -i http://127.0.0.1:8080/
      edgecache stats
    """


@cli.command()
@click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="EDGECACHE_CONFIG",
    help="Configuration file (YAML).  [env: EDGECACHE_CONFIG]",
)
@click.option("--origin", metavar="URL", help=_setting("origin", "Origin of a single site.", None))
@click.option(
    "--listen",
    metavar="ADDR:PORT",
    multiple=True,
    help=_setting("listen", "Public address; may be given several times.", "127.0.0.1:8080"),
)
@click.option(
    "--admin", metavar="ADDR:PORT", help=_setting("admin.address", "Address of the admin API.", "127.0.0.1:8081")
)
@click.option(
    "--workers",
    metavar="N",
    help=_setting("workers", "Processes that serve clients; 0: all in one process.", "auto, one per CPU"),
)
@click.option("--memory", metavar="SIZE", help=_setting("memory.size", "Bound on the memory tier.", "256MiB"))
@click.option("--disk", metavar="DIR", help=_setting("disk.path", "Directory of the disk tier.", "none: no disk tier"))
@click.option("--disk-size", metavar="SIZE", help=_setting("disk.size", "Bound on the disk tier.", "10GiB"))
@click.option(
    "--coordinator",
    metavar="URL",
    help=_setting("purge.coordinator", "The fleet's purge coordinator.", "none: on its own"),
)
def serve(
    *,
    file: Path | None,
    origin: str | None,
    listen: tuple[str, ...],
    admin: str | None,
    workers: str | None,
    memory: str | None,
    disk: str | None,
    disk_size: str | None,
    coordinator: str | None,
) -> None:
    """Run an edge in front of an origin, until SIGTERM or Ctrl-C.

    The command line comes before the environment, the environment before the file. Every key of the configuration
    has a variable: EDGECACHE_LOG_ACCESS_FORMAT is log.access.format.
    """
    given: dict[str, object] = {
        "origin": origin,
        "listen": list(listen) or None,
        "admin.address": admin,
        "workers": workers,
        "memory.size": memory,
        "disk.path": disk,
        "disk.size": disk_size,
        "purge.coordinator": coordinator,
    }
    config = _load(file, given, environment=True)
    from edgecache import supervisor

    sys.exit(supervisor.serve(config, lambda: _read(file, given, environment=True)))


@cli.command(short_help="A small site behind an edge on this machine, to see it work.")
@click.option("--listen", metavar="ADDR:PORT", default="127.0.0.1:8080", show_default=True, help="Public address.")
@click.option("--admin", metavar="ADDR:PORT", default="127.0.0.1:8081", show_default=True, help="Admin API's address.")
def demo(*, listen: str, admin: str) -> None:
    """A small bundled site, two edges, a coordinator and GeoDNS, on this machine, until Ctrl-C.

    Its pages show the Cache-Status they came with: misses, hits, revalidation, purging by surrogate key.
    """
    from edgecache.config.units import parse_address

    addresses = {}
    for name, text in (("--listen", listen), ("--admin", admin)):
        try:
            addresses[name] = parse_address(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not {error}", param_hint=name) from None
    run = importlib.import_module("edgecache.demo.run").run
    sys.exit(run(addresses["--listen"], addresses["--admin"], say=click.echo))


@cli.group(invoke_without_command=True, short_help="Run the purge coordinator of a fleet; manage its tokens.")
@click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="EDGECACHE_CONFIG",
    help="Configuration file (YAML).  [env: EDGECACHE_CONFIG]",
)
@click.option(
    "--listen",
    metavar="ADDR:PORT",
    help=_setting("coordinator.listen", "Address for edges and callers.", "127.0.0.1:8090"),
)
@click.option(
    "--data",
    metavar="DIR",
    help=_setting("coordinator.data", "Directory of the log and the tokens.", "state directory"),
)
@click.option(
    "--bus",
    metavar="URL",
    multiple=True,
    help=_setting("coordinator.nats.servers", "NATS server to keep the log in; repeatable.", "none: in the directory"),
)
@click.pass_context
def coordinator(
    context: click.Context, *, file: Path | None, listen: str | None, data: str | None, bus: tuple[str, ...]
) -> None:
    """Run the purge coordinator of a fleet, until SIGTERM or Ctrl-C.

    It keeps the log of purges, and sends each to every edge that subscribes. Make tokens before anything else:

    \b
      edgecache coordinator token add deploy --scope purge
      edgecache coordinator token add edges --scope edge
    """
    given: dict[str, object] = {
        "coordinator.listen": listen,
        "coordinator.data": data,
        "coordinator.nats.servers": list(bus) or None,
    }
    context.obj = lambda: _load_coordinator(file, given, environment=True)
    if context.invoked_subcommand is None:
        from edgecache.supervisor import coordinate

        config = context.obj()
        sys.exit(coordinate.serve(config, lambda: _read_coordinator(file, given, environment=True)))


def _read_coordinator(file: Path | None, given: dict[str, object], *, environment: bool) -> "LoadedCoordinator":
    """Raises `ConfigError`."""
    from edgecache.config.load_coordinator import load_coordinator

    return load_coordinator(file, environ=os.environ if environment else {}, overrides=_overrides(given))


def _load_coordinator(file: Path | None, given: dict[str, object], *, environment: bool) -> "CoordinatorFile":
    return _usable(lambda: _read_coordinator(file, given, environment=environment)).config


@coordinator.group()
def token() -> None:
    """Who may purge, subscribe and look. A running coordinator takes changes up within a second."""


def _tokens(context: click.Context) -> Path:
    from edgecache.supervisor.coordinate import tokens_path

    return tokens_path(context.obj().coordinator)


@token.command("add")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(["purge", "edge", "read", "admin"]),
    help="What it allows; repeatable. admin: everything.",
)
@click.option("--site", "sites", metavar="NAME", multiple=True, help="Purge only this site's keys; repeatable.")
@click.option(
    "--host", "hosts", metavar="HOST", multiple=True, help='With --site: purge URLs there, "*." too; repeatable.'
)
@click.option(
    "--rate", type=click.FloatRange(min=0.001), metavar="N", help="Purges per second, instead of coordinator.rate."
)
@click.pass_context
def token_add(
    context: click.Context,
    *,
    name: str,
    scopes: tuple[str, ...],
    sites: tuple[str, ...],
    hosts: tuple[str, ...],
    rate: float | None,
) -> None:
    """Make a token and print it. Only its hash is kept: it cannot be shown again."""
    from edgecache.http.clock import wall_clock
    from edgecache.purge.coordinator import tokens as book

    try:
        made = book.add(
            _tokens(context), name, map(book.Scope, scopes), now=wall_clock(), sites=sites, hosts=hosts, rate=rate
        )
    except book.TokensError as error:
        _fail(str(error))
    click.echo(made)


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def token_list(context: click.Context, *, as_json: bool) -> None:
    """Names, scopes and limits of all tokens."""
    from edgecache.purge.coordinator import tokens as book

    try:
        grants = book.read(_tokens(context))
    except book.TokensError as error:
        _fail(str(error))
    rows = [
        {
            "name": grant.name,
            "scopes": sorted(grant.scopes),
            "sites": list(grant.sites),
            "hosts": list(grant.hosts),
            "rate": grant.rate,
            "created": grant.created,
        }
        for grant in grants
    ]
    if as_json:
        _json({"tokens": rows})
    else:
        report.console().print(report.tokens(rows))


@token.command("remove")
@click.argument("name")
@click.pass_context
def token_remove(context: click.Context, *, name: str) -> None:
    """Remove a token. Calls with it are refused within a second, and edges that subscribed with it are cut off."""
    from edgecache.purge.coordinator import tokens as book

    try:
        book.remove(_tokens(context), name)
    except book.TokensError as error:
        _fail(str(error))


@cli.command(short_help="Run the authoritative DNS server that sends clients to the nearest PoP.")
@click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="EDGECACHE_GEODNS_CONFIG",
    required=True,
    help="Configuration file (YAML).  [env: EDGECACHE_GEODNS_CONFIG]",
)
@click.option(
    "--listen",
    metavar="ADDR:PORT",
    multiple=True,
    envvar="EDGECACHE_GEODNS_LISTEN",
    help="Address to answer on, UDP and TCP; may be given several times.  [key: listen; env: EDGECACHE_GEODNS_LISTEN; "
    "default: 127.0.0.1:5300]",
)
@click.option(
    "--explain", "explained", nargs=2, metavar="CLIENT_IP NAME", help="Say what this client is answered, and why."
)
@click.option("--json", "as_json", is_flag=True, help="With --explain: print JSON.")
def geodns(*, file: Path, listen: tuple[str, ...], explained: tuple[str, str] | None, as_json: bool) -> None:
    """Run the authoritative DNS server until SIGTERM or Ctrl-C. SIGHUP reads its file again.

    With --explain nothing is run: the answer for one client is worked out from the file, with health as a running
    server's admin API tells it.
    """
    given: dict[str, object] = {"listen": list(listen) or None}

    def read() -> "LoadedGeo":
        from edgecache.config.load_geodns import load_geodns

        return load_geodns(file, _overrides(given))

    loaded = _usable(read)
    if explained is not None:
        _explain_geodns(loaded, *explained, as_json=as_json)
        return
    from edgecache.supervisor import geodns as processes

    sys.exit(processes.serve(loaded, read))


def _explain_geodns(loaded: "LoadedGeo", client: str, name: str, *, as_json: bool) -> None:
    from edgecache.geodns.explain import ExplainError, explain

    admin = loaded.config.admin
    where = f"http://{admin.address}" if admin.address.host else f"http://127.0.0.1:{admin.address.port}"
    try:
        token = tokens.for_client(admin.token_file, os.environ, root=os.geteuid() == 0)
        pops = AdminClient(where, token, timeout_s=2.0).pops()
    except (ClientError, tokens.TokenError):
        pops = None
    try:
        found = explain(loaded, client, name, pops)
    except ExplainError as error:
        _fail(str(error))
    if as_json:
        _json(found)
    else:
        report.console().print(report.geodns(found))


@cli.command(short_help="Validate a configuration file.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def check(file: Path) -> None:
    """Validate a configuration file, alone: the environment is left out. All errors are shown at once."""
    from edgecache.config.load_coordinator import is_coordinator
    from edgecache.config.load_geodns import is_geodns, load_geodns

    if _usable_kind(file, is_coordinator):
        made = _load_coordinator(file, {}, environment=False).coordinator
        click.echo(f"{file}: valid, a coordinator on {made.listen}")
        return
    if _usable_kind(file, is_geodns):
        found = _usable(lambda: load_geodns(file))
        zones, pops = len(found.zones), len(found.config.pops)
        click.echo(f"{file}: valid, GeoDNS with {zones} zone{'s' * (zones > 1)} and {pops} PoP{'s' * (pops > 1)}")
        for zone in found.zones:
            geo = ", ".join(str(name).removesuffix(".") for name in zone.geo)
            click.echo(f"  {str(zone.origin).removesuffix('.')}: {geo or 'the same for every client'}")
        return
    config = _load(file, {}, environment=False)
    number = len(config.sites)
    click.echo(f"{file}: valid, {number} site{'s' if number > 1 else ''}")
    for site in config.sites:
        click.echo(f"  {report.plain(site.title)}: {', '.join(site.hosts) or 'every host'} -> {site.origin.url}")


def _usable_kind(file: Path, kind: Callable[[Path], bool]) -> bool:
    """False for a file that cannot be read: who reads it as an edge's says what is wrong."""
    from edgecache.config.load import ConfigError

    try:
        return kind(file)
    except ConfigError:
        return False


def _client_options(command: F) -> F:
    """Options of every command that asks a running edge."""
    for decorate in (
        click.option(
            "--token-file",
            metavar="FILE",
            envvar="EDGECACHE_TOKEN_FILE",
            help="File with the admin token.  [env: EDGECACHE_TOKEN_FILE, or the token itself in EDGECACHE_TOKEN; "
            "default: the file that serve makes]",
        ),
        click.option(
            "--to",
            metavar="URL",
            default=DEFAULT_TO,
            envvar="EDGECACHE_TO",
            help=f"Admin API of the edge, or a coordinator.  [env: EDGECACHE_TO; default: {DEFAULT_TO}]",
        ),
    ):
        command = decorate(command)
    return command


def _ask(to: str, token_file: str | None, question: Callable[[AdminClient], dict[str, Any]]) -> dict[str, Any]:
    try:
        token = tokens.for_client(token_file, os.environ, root=os.geteuid() == 0)
        return question(AdminClient(to, token))
    except (ClientError, tokens.TokenError) as error:
        _fail(str(error))


def _json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=not sys.stdout.isatty()))


@cli.command(short_help="Purge by URL, surrogate key, host, prefix, or everything.")
@click.option("--url", "urls", metavar="URL", multiple=True, help="A URL, with all its variants; repeatable.")
@click.option("--key", "keys", metavar="KEY", multiple=True, help="A surrogate key; repeatable.")
@click.option("--host", "hosts", metavar="HOST", multiple=True, help="Everything on a host; repeatable.")
@click.option("--prefix", "prefixes", metavar="PREFIX", multiple=True, help="HOST/PATH/ and all below; repeatable.")
@click.option(
    "--pattern",
    "patterns",
    metavar="[HOST]~REGEX",
    multiple=True,
    help="URLs that a regular expression is found in, on one host or all; repeatable. Where it is enabled.",
)
@click.option("--all", "everything", is_flag=True, help="Everything.")
@click.option("--site", metavar="NAME", help="Only this site's keys, or this site's everything.")
@click.option("--soft", is_flag=True, help="Make stale, instead of removing.")
@click.option(
    "--wait", is_flag=True, help="Wait for every edge and print a row for each; exit 1 if one did not confirm."
)
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.001, 300), metavar="S", help="With --wait: how long.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@_client_options
def purge(
    *,
    urls: tuple[str, ...],
    keys: tuple[str, ...],
    hosts: tuple[str, ...],
    prefixes: tuple[str, ...],
    patterns: tuple[str, ...],
    everything: bool,
    site: str | None,
    soft: bool,
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
    to: str,
    token_file: str | None,
) -> None:
    """Purge by URL, surrogate key, host, prefix, or everything; all that is named goes in one step."""
    if not (urls or keys or hosts or prefixes or patterns or everything):
        raise click.UsageError("name what to purge: --url, --key, --host, --prefix, --pattern or --all")
    body: dict[str, Any] = {"soft": soft, "wait": wait, "all": everything}
    body |= {"urls": urls, "keys": keys, "hosts": hosts, "prefixes": prefixes}
    if patterns:
        body["patterns"] = [_url_pattern(pattern) for pattern in patterns]
    if site is not None:
        body["site"] = site
    if timeout_s is not None:
        body["timeout_s"] = timeout_s
    receipt = _ask(to, token_file, lambda client: client.purge(body))
    if as_json:
        _json(receipt)
    elif wait:
        report.console().print(report.purge(receipt))
    else:
        click.echo(f"purge {receipt['sequence']} taken")
    if wait and not all(edge["applied"] for edge in receipt["edges"]):
        sys.exit(1)


def _url_pattern(text: str) -> dict[str, str]:
    """HOST~REGEX or ~REGEX. No host has a tilde."""
    host, tilde, url = text.partition("~")
    if not tilde or not url:
        raise click.UsageError("--pattern is HOST~REGEX, or ~REGEX for every host")
    return {"url": url, "host": host} if host else {"url": url}


@cli.command(short_help="Who purged what, when, from which address.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N", help="How many.")
@click.option("--before", type=click.IntRange(1), metavar="N", help="Of those numbered less than this.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
@_client_options
def purges(*, limit: int, before: int | None, as_json: bool, to: str, token_file: str | None) -> None:
    """Who purged what, when, from which address; newest first. A coordinator's record needs a token with the scope
    admin."""
    found = _ask(to, token_file, lambda client: client.audit(before=before, limit=limit))
    if as_json:
        _json(found)
    else:
        report.console().print(report.audit(found["records"]))


@cli.command(short_help="Say what the edge would do with a request, and why.")
@click.argument("url")
@click.option("-X", "--method", default="GET", show_default=True, metavar="METHOD", help="Request method.")
@click.option(
    "-H", "--header", "fields", multiple=True, metavar="FIELD", help='Request field, "Name: value"; repeatable.'
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@_client_options
def explain(*, url: str, method: str, fields: tuple[str, ...], as_json: bool, to: str, token_file: str | None) -> None:
    """Say what the edge would do with a request, what is stored, and why. Nothing is fetched or changed."""
    found = _ask(to, token_file, lambda client: client.explain(url, method, fields))
    if as_json:
        _json(found)
    else:
        report.console().print(report.explain(found))


@cli.command(short_help="Hit ratio, requests, octets, latency.")
@click.option("--watch", is_flag=True, help="Refresh every second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch one line per second.")
@_client_options
def stats(*, watch: bool, as_json: bool, to: str, token_file: str | None) -> None:
    """Hit ratio, requests, octets, latency, tiers and purges of a running edge."""

    def ask() -> dict[str, Any]:
        return _ask(to, token_file, AdminClient.stats)

    if watch:
        try:
            _watch(ask, as_json=as_json)
        except KeyboardInterrupt:
            return
    elif as_json:
        _json(ask())
    else:
        report.console().print(report.stats(ask()))


def _watch(ask: Callable[[], dict[str, Any]], *, as_json: bool) -> NoReturn:
    from rich.live import Live

    out = report.console()
    if as_json or not out.is_terminal:
        while True:
            figures = ask()
            if as_json:
                click.echo(json.dumps(figures))
            else:
                out.print(report.stats(figures))
                click.echo()
            time.sleep(_WATCH_S)
    before, at = ask(), time.monotonic()
    with Live(report.stats(before), console=out, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(_WATCH_S)
            figures, now = ask(), time.monotonic()
            live.update(report.stats(figures, report.rates(before, figures, now - at)), refresh=True)
            before, at = figures, now


def main() -> None:
    cli(prog_name="edgecache")
