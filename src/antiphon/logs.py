"""Logs, configured once at the edge: JSON lines for machines, short readable lines on a terminal, always to stderr.

What is logged may come from anybody: a node's name for itself, a question, an exception's text. So control characters
never leave as they are (a line cannot be forged, a terminal cannot be driven), and tracebacks hold no local
variables, where tokens live.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, Protocol, TextIO, cast

_RICH = "rich"


def _import_structlog() -> Any:
    """Import structlog without rich, which it would load for tracebacks that are not wanted: 70 ms and 5 MiB."""
    hidden = _RICH not in sys.modules and "structlog" not in sys.modules
    if hidden:
        sys.modules[_RICH] = cast("Any", None)  # as if it were not installed
    try:
        import structlog  # noqa: PLC0415 - that is what this function is for
    finally:
        if hidden:
            del sys.modules[_RICH]
    return structlog


structlog = _import_structlog()

LEVEL_VARIABLE: Final = "ANTIPHON_LOG"
LEVELS: Final = ("debug", "info", "warning", "error")
FRAMES_MAX: Final = 30
VALUE_CHARS_MAX: Final = 4_000
"""A longer value of an event is cut: one record must not fill a disk."""

QUIET: Final = ("watchfiles",)
"""Libraries that log at info what our own events say; only their warnings are written."""
CLEAR: Final = "\r\x1b[K"

Event = MutableMapping[str, Any]


class MovingLine:
    """A line that moves on a terminal (a progress bar); a log line takes it away first."""

    def __init__(self) -> None:
        self.is_drawn = False

    def cleared(self) -> str:
        """Return what takes it away, or nothing where it is not there."""
        was_drawn, self.is_drawn = self.is_drawn, False
        return CLEAR if was_drawn else ""


moving: Final = MovingLine()
"""The one of this process's terminal."""


class Keep(Protocol):
    """Where lines are kept besides."""

    def write(self, line: str) -> None:
        """Keep a line of JSON."""


def configure(
    level: str | None = None, *, default: str = "info", stream: TextIO | None = None, keep: Keep | None = None
) -> None:
    """Send all logs of this process, the standard library's too, to `stream`, stderr by default.

    Args:
        level: the least level that is written; None takes `$ANTIPHON_LOG`, and `default` where that is not set.
        default: the level of a process that was not told one.
        stream: where to; readable lines if it is a terminal, JSON lines otherwise.
        keep: where what is info or worse goes besides, as JSON lines.

    Raises:
        ValueError: the level is none of `LEVELS`.
    """
    least = (level or os.environ.get(LEVEL_VARIABLE) or default).lower()
    if least not in LEVELS:
        raise ValueError(f"the log level {least[:40]!r} is none of {', '.join(LEVELS)}")
    target = stream or sys.stderr
    number = shown = getattr(logging, least.upper())
    kept: list[Callable[..., Any]] = []
    if keep is not None:
        number = min(shown, logging.INFO)
        kept = [_Keeping(keep, shown)]
    processors = [structlog.contextvars.merge_contextvars, _stamped, *kept, *(_for_people(target) or _for_machines())]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_Factory(target),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(number)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


class _Factory:
    """Makes the logger that all others of this process write to."""

    def __init__(self, target: TextIO) -> None:
        self._lines = _Lines(target)

    def __call__(self, *_args: object) -> _Lines:
        """Return it; who asks does not matter."""
        return self._lines


class _Lines:
    """Writes lines to a stream. One that takes none, e.g. on a full disk, keeps nobody from his work."""

    def __init__(self, target: TextIO) -> None:
        self._write: Callable[[str], None] = structlog.WriteLogger(target).msg

    def msg(self, line: str) -> None:
        """Write a line, if it can be."""
        with suppress(OSError, ValueError):
            self._write(line)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


class _Keeping:
    """Keeps every event as a line of JSON, and lets pass what is to be shown."""

    def __init__(self, keep: Keep, shown: int) -> None:
        self._keep = keep
        self._shown = shown
        self._machines = _for_machines()

    def __call__(self, logger: Any, level: str, event: Event) -> Event:
        """Keep an event; raises `DropEvent` for one that is kept only."""
        line: Any = dict(event)
        for processor in self._machines:
            line = processor(logger, level, line)
        self._keep.write(line)
        if getattr(logging, str(event["level"]).upper(), logging.ERROR) < self._shown:
            raise structlog.DropEvent
        return event


class _ToStructlog(logging.Handler):
    """Hands the records of libraries (nats-py, asyncio) to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; what cannot even be formatted is written as it stands."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        write = getattr(structlog.get_logger(record.name), record.levelname.lower(), None)
        if write is not None:
            write(text, logger=record.name, exc_info=record.exc_info)


def _stamped(_logger: Any, level: str, event: Event) -> Event:
    event["level"] = "error" if level == "exception" else level
    event["at"] = datetime.now().astimezone()
    return event


def _for_machines() -> list[Callable[..., Any]]:
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, use_rich=False, max_frames=FRAMES_MAX)
    return [structlog.processors.ExceptionRenderer(frames), _json]


def _json(_logger: Any, _level: str, event: Event) -> str:
    import orjson  # noqa: PLC0415 - a process that logs nothing needs it not

    event["at"] = event["at"].isoformat(timespec="milliseconds")
    try:
        return escaped(orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode())
    except TypeError:  # half a surrogate pair, or an integer beyond 64 bits
        return escaped(json.dumps(event, default=str, skipkeys=True))


def _for_people(target: TextIO) -> list[Callable[..., Any]] | None:
    if not target.isatty():
        return None
    has_colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return [structlog.processors.ExceptionRenderer(_traceback), _Readable(has_colour=has_colour)]


def _traceback(exc_info: Any) -> str:
    import traceback  # noqa: PLC0415 - only when there is one

    return "".join(traceback.format_exception(*exc_info, limit=-FRAMES_MAX))


class _Readable:
    """`12:00:01 warning bus.disconnected node=blog`, dim where it is only context."""

    COLOURS: Final = {"debug": "2", "info": "36", "warning": "33", "error": "31;1", "critical": "31;1"}

    def __init__(self, *, has_colour: bool) -> None:
        self._has_colour = has_colour

    def __call__(self, _logger: Any, _level: str, event: Event) -> str:
        """Return the line, with a traceback below it where there is one."""
        at, level = event.pop("at"), event.pop("level")
        what, trace = event.pop("event", ""), event.pop("exception", "")
        values = " ".join(f"{escaped(str(key))}={_value(value)}" for key, value in event.items())
        line = f"{self._in('2', f'{at:%H:%M:%S}')} {self._in(self.COLOURS.get(level, ''), f'{level:7}')} {_cut(what)}"
        below = "".join(f"\n    {escaped(part)}" for part in str(trace).rstrip().splitlines())
        return moving.cleared() + f"{line} {self._in('2', values)}".rstrip() + below

    def _in(self, style: str, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._has_colour and style and text else text


def _value(value: Any) -> str:
    text = _cut(value)
    return text if text and " " not in text else f'"{text}"'


def _cut(value: Any) -> str:
    text = str(value)
    return escaped(text if len(text) <= VALUE_CHARS_MAX else text[:VALUE_CHARS_MAX] + "…")


_HARMFUL: Final = re.compile(
    "["
    "\x00-\x1f"  # C0: line feeds forge lines, ESC drives terminals
    "\x7f-\x9f"  # DEL and C1: 0x9b is ESC [ in one character
    "\u2028-\u202e"  # line separators, and overrides that turn text round
    "\u2066-\u2069"
    "\ud800-\udfff"  # halves of pairs, which cannot be written as UTF-8
    "\ufeff"
    "]"
)


def escaped(text: str) -> str:
    r"""Return a text with control characters as `\u001b`: legal inside JSON strings, and harmless on a terminal."""
    return text if text.isascii() and text.isprintable() else _HARMFUL.sub(_code, text)


def _code(harmful: re.Match[str]) -> str:
    return f"\\u{ord(harmful[0]):04x}"
