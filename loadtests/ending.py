"""How what is run here ends when it is told to: with all that it has started."""

import signal
import sys

_NUMBERS = (signal.SIGTERM, signal.SIGHUP)


def end_when_told() -> None:
    """Let SIGTERM, and the end of the terminal, unwind the program as Ctrl-C does; by themselves they would end nothing
    but its own process. The exit code is the shell's: 128 and the signal's number."""
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _end)


def _end(number: int, _: object) -> None:
    for each in _NUMBERS:
        signal.signal(each, signal.SIG_IGN)  # told again, as by a shell and by its terminal, it is on its way already
    sys.exit(128 + number)
