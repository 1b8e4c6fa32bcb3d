"""Signals that end the command line: what is open is put in order, and one line says why it ended.

An interrupt while the package is imported, which takes a second or more, would end in a traceback of whatever import it met.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

_OURS = ("lqo-mor", "lqo-mor.exe", "lqo-mor-script.py")
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_INTERRUPTED = b"lqo-mor: interrupted\n"


class Ended(BaseException):
    """A signal asks the process to end; files and the terminal are put in order on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number  # as a shell reports it


def quiet_while_importing() -> None:
    """Let an interrupt end the process by one line while our command line is imported; anybody else's process stays as it is."""
    if _COMMAND_LINE and _can_handle(signal.SIGINT, signal.default_int_handler):
        signal.signal(signal.SIGINT, _end_at_once)


@contextmanager
def in_order() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `Ended`, unless they are ignored (nohup), and an interrupt into `KeyboardInterrupt` again.

    An error in a destructor, as of an object that was half made when the signal came, is not shown; where that error is the end
    itself, the signal is sent once more.
    """
    before = {}
    if _can_handle(signal.SIGINT, _end_at_once):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _ENDING:
        if _can_handle(number, signal.SIG_DFL):
            before[number] = signal.signal(number, _raise_ended)
    hook, sys.unraisablehook = sys.unraisablehook, _in_a_destructor
    ended = False
    try:
        yield
    except (Ended, KeyboardInterrupt):
        ended = True
        raise
    finally:
        if not (ended and _COMMAND_LINE):  # otherwise more destructors come when Python ends
            sys.unraisablehook = hook
        _way_out.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


_way_out = threading.Event()  # a second signal, as of a terminal that closes, must not stop the way out


def _raise_ended(number: int, frame: FrameType | None) -> None:
    if not _way_out.is_set():
        _way_out.set()
        raise Ended(number)


def _in_a_destructor(unraisable: sys.UnraisableHookArgs) -> None:
    error = unraisable.exc_value
    if isinstance(error, (Ended, KeyboardInterrupt)):
        _way_out.clear()
        number = error.exit_code - 128 if isinstance(error, Ended) else signal.SIGINT
        threading.Timer(0.01, os.kill, (os.getpid(), number)).start()  # here it would be lost again


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    with suppress(OSError):
        os.write(2, _INTERRUPTED)
    os._exit(128 + number)


def _can_handle(number: int, current: object) -> bool:
    """Whether a signal has this handler, and may get another one here."""
    return threading.current_thread() is threading.main_thread() and signal.getsignal(number) is current


def _is_command_line() -> bool:
    """Whether this process is ``lqo-mor`` or ``python -m lqo_mor``, of which Python imports the package before it is run."""
    if not sys.argv or sys.argv[0] != "-m":
        return bool(sys.argv) and os.path.basename(sys.argv[0]) in _OURS  # noqa: PTH119 (quicker than pathlib)
    return "-mlqo_mor" in sys.orig_argv or ("-m", "lqo_mor") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)


_COMMAND_LINE = _is_command_line()  # while it is imported: later Python has another name for what is run
