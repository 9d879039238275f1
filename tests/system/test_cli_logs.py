"""Logs: JSON lines off a terminal, readable ones on it; nothing forged, no local variables, libraries included."""

from __future__ import annotations

import io
import json
import logging
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from antiphon import logs
from antiphon.cli import progress
from antiphon.cli.safe import json_text, line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fail(text: str) -> None:
    password = "hunter" + "2"
    raise ValueError(f"{text} of {len(password)}")


def write(stream: io.StringIO) -> list[str]:
    logs.configure("info", stream=stream)
    log = structlog.get_logger("test")
    log.debug("not.seen")
    log.info("some.event", name="a\x1b[31m\nlevel=error forged \x9b \u202e \ud800", count=3, big=2**70)
    try:
        fail("a\x1b]0;x\x07")
    except ValueError:
        log.exception("it.failed", node="blog")
    logging.getLogger("nats.aio.client").error("nats: %s", "lost\r\n")
    return stream.getvalue().splitlines()


def test_json_lines_off_a_terminal() -> None:
    lines = write(io.StringIO())
    assert all(text.isascii() and text.isprintable() for text in lines)
    first, second, third = map(json.loads, lines)
    assert (first["event"], first["level"], first["count"]) == ("some.event", "info", 3)
    assert second["exception"][0]["exc_type"] == "ValueError"
    assert "hunter2" not in lines[1]
    assert (third["event"], third["logger"]) == ("nats: lost\r\n", "nats.aio.client")


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_readable_lines_on_a_terminal(monkeypatch: pytest.MonkeyPatch, no_colour: str) -> None:
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setenv("TERM", "xterm")
    text = "\n".join(write(Terminal()))
    assert ("\x1b[" in text) == (not no_colour)
    for harmful in ("\x1b[31m\n", "\x1b]", "\x07", "\x9b", "\u202e"):
        assert harmful not in text
    assert "level=error forged" in text.splitlines()[0], "one event is one line"
    assert "ValueError: a\\u001b]0;x\\u0007 of 7" in text
    assert "hunter2" not in text


def test_a_log_line_takes_a_moving_line_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    logs.configure("info")
    log = structlog.get_logger("test")
    with progress.shown("docs") as report:
        report(1, 10)
        log.info("first.event")
        log.info("second.event")
        monkeypatch.setattr(progress, "REDRAW_MS", 0)
        report(2, 10)
    parts = [part.split() for part in screen.getvalue().split(logs.CLEAR)]
    assert [len(part) > 0 for part in parts] == [False, True, True, True, False]
    assert (parts[1][-1], parts[3][-1]) == ("1/10", "2/10")
    assert [word for word in parts[2] if word.endswith(".event")] == ["first.event", "second.event"]


def test_what_libraries_say_of_their_own_work_is_not_written() -> None:
    stream = io.StringIO()
    logs.configure("debug", stream=stream)
    logging.getLogger("watchfiles.main").info("1 change detected")
    logging.getLogger("watchfiles.main").warning("odd")
    assert [json.loads(text)["event"] for text in stream.getvalue().splitlines()] == ["odd"]


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_stream_that_takes_nothing_stops_nobody(*, is_closed: bool) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115 - it refuses again when it is closed
    logs.configure("info", stream=full)
    if is_closed:
        with suppress(OSError):
            full.close()
    with pytest.raises((OSError, ValueError)):
        print("text", file=full, flush=True)
    structlog.get_logger("test").error("not.written")
    logging.getLogger("nats.aio.client").error("nats: lost")
    with suppress(OSError):
        full.close()


def test_a_level_that_is_none() -> None:
    with pytest.raises(ValueError, match="none of debug, info"):
        logs.configure("loud")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("a\r\n b\t c", "a b c"),
        ("\x1b[2J\x07", "␛[2J␇"),
        ("\x7f\x9b31m", "␡\ufffd31m"),
        ("abc\u202edef\u2066", "abc\ufffddef\ufffd"),
        ("naïve 検索 👩\u200d🚀", "naïve 検索 👩\u200d🚀"),
        ("\ud800", "\ufffd"),
    ],
)
def test_lines_are_harmless(text: str, shown: str) -> None:
    assert line(text) == shown
    assert line(shown) == shown


def test_json_is_harmless_and_means_the_same() -> None:
    text = json.dumps("é \x7f \x9b \u202e ok", ensure_ascii=False)
    assert json.loads(json_text(text)) == json.loads(text)
    assert not {"\x7f", "\x9b", "\u202e"} & set(json_text(text))
