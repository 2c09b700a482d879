"""Processes: a supervisor that forks workers and a control process, replaces those that die, reloads and drains.

    alone      all of it in one process (`workers: 0`)
    watch      the supervisor: signals, deaths, generations
    child      what a forked process does, and what it and the supervisor say to each other
    machine    what is asked of the system: CPUs, file descriptors, process names

The supervisor has one thread and no event loop, so that a fork copies nothing that is half done.
"""

import logging
from collections.abc import Callable

from edgecache.app import Shared, StartError
from edgecache.config.load import Loaded
from edgecache.config.model import Config
from edgecache.observe import log
from edgecache.supervisor import alone, machine
from edgecache.supervisor.setting import SetupError
from edgecache.supervisor.watch import Supervisor

_log = logging.getLogger("edgecache")


def serve(config: Config, load: Callable[[], Loaded]) -> int:
    """Run an edge until SIGTERM or SIGINT. Returns the process's exit code.

    `load` reads the configuration again, for SIGHUP, and raises `ConfigError`.
    """
    log.set_up(config.log.level, config.log.format)
    machine.raise_file_limit()
    try:
        shared = Shared(config)
        if machine.workers(config.workers) == 0:
            return alone.run(config, shared, load)
        return Supervisor(config, shared, load).run()
    except (StartError, SetupError) as error:
        _log.error("%s", error)
        return 2
