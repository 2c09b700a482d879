"""How what is run here ends when it is told to: with all that it has started."""

import signal
import sys


def end_when_told() -> None:
    """Let SIGTERM, and the end of the terminal, unwind the program as Ctrl-C does; by themselves they would end nothing
    but its own process. The exit code is the shell's: 128 and the signal's number."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _end)


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)
