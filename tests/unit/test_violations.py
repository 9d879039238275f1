"""Lines of a nats-server's log: what is a violation is read, and nobody can make a line that says another's name."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.actors.violations import ViolationFollower
from antiphon.clock import LoopClock
from antiphon.decide.grants import Grants
from antiphon.decide.limit import Rate
from antiphon.decide.login import Labelled, Login
from antiphon.decide.violations import Violations, read
from antiphon.messages.base import Kind

HEAD = "[13119] 2026/11/23 09:28:18.184544 [ERR] 127.0.0.1:43742 - cid:35 - "
CLIENT = '"v2.16.0:python3:web" - '
LOGIN = Login(Kind.PUBLISHER, "web", None, Grants((), ()), 0, "a" * 16, "j" * 22)
USER = f'"APP/user:{LOGIN.label}" - '
WHO = Labelled.of(LOGIN.label)
PUBLISH = HEAD + CLIENT + USER + 'Publish Violation - Subject "foo.bar"'


@pytest.mark.parametrize(
    ("line", "what", "subject"),
    [
        (PUBLISH, "publish", "foo.bar"),
        (HEAD + USER + 'Publish Violation - Subject "foo.bar"', "publish", "foo.bar"),
        (HEAD + CLIENT + USER + r'Publish Violation - Subject "a\"b\x1b[31m"', "publish", r"a\"b\x1b[31m"),
        (HEAD + CLIENT + USER + 'Subscription Violation - Subject "x.>", SID 1', "subscribe", "x.>"),
        (HEAD + CLIENT + USER + 'Subscription Violation - Subject "x", Queue: "q", SID 2', "subscribe", "x"),
        (HEAD.replace("cid", "wid") + CLIENT + USER + 'Publish Violation - Reply "_R_.x"', "publish", "_R_.x"),
    ],
)
def test_a_violation_is_read(line: str, what: str, subject: str) -> None:
    found = read(line, "APP")
    assert found is not None
    assert (found.user, found.what, found.subject, found.address) == (WHO, what, subject, "127.0.0.1:43742")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x" * 100_000,
        PUBLISH + " ",
        PUBLISH + PUBLISH,
        " " + PUBLISH,
        PUBLISH.replace("APP/", "OTHER/"),
        PUBLISH.replace("[ERR]", "[INF]"),
        PUBLISH.replace("publisher:web", "root:web"),
        PUBLISH.replace(LOGIN.label, "UABC"),
        HEAD + '"v:python3:x" - ' + PUBLISH,
    ],
)
def test_anything_else_is_not(line: str) -> None:
    assert read(line, "APP") is None


def go_quoted(text: str) -> str:
    """As Go's %q writes it, in the one way that matters here."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').encode("unicode_escape").decode("ascii") + '"'


@given(st.text(max_size=200), st.text(max_size=100))
def test_whatever_a_client_calls_itself_it_is_the_label_that_counts(name: str, subject: str) -> None:
    accused = USER.replace("web", "boss")
    forged = f'{name}" - {accused}Publish Violation - Subject "x"\n' + PUBLISH.replace("web", "boss")
    line = HEAD + go_quoted(f"v1:python3:{forged}") + " - " + USER + f"Publish Violation - Subject {go_quoted(subject)}"
    found = read(line, "APP")
    assert found is None or found.user == WHO


def test_a_line_that_would_keep_a_backtracking_reader_busy_is_read_at_once() -> None:
    began = time.perf_counter()
    for text in (
        '"' * 30_000,
        "\\" * 30_000,
        HEAD + '"' + "\\\\" * 15_000,
        HEAD + CLIENT + '"APP/user:' + "a" * 30_000,
    ):
        assert read(text, "APP") is None
    assert time.perf_counter() - began < 0.5


def test_what_is_not_told_is_counted() -> None:
    found, violations = read(PUBLISH, "APP"), Violations(Rate(3, 60_000, 3))
    assert found is not None
    assert [violations.is_told(found, 0) for _ in range(5)] == [True, True, True, False, False]
    assert violations.counted() == {WHO: 2}
    assert violations.counted() == {}


class Told:
    """An audit that writes down what it is told."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, str]] = []

    def tell(self, what: str, who: str, *, why: str = "", where: str = "", **more: object) -> None:
        assert what == "violated"
        assert more["credential"] == "j" * 22
        self.all.append((who, why, where.partition(" ")[2]))


def line(subject: str) -> str:
    return PUBLISH.replace("foo.bar", subject) + "\n"


@pytest.fixture
async def followed(tmp_path: Path) -> tuple[Path, Told, ViolationFollower]:
    path, told = tmp_path / "server.log", Told()
    path.write_text(line("old"), encoding="utf-8")
    follower = ViolationFollower(path, told, LoopClock())  # type: ignore[arg-type]  # what it needs of an audit
    await follower.start()
    return path, told, follower


def read_all(follower: ViolationFollower) -> None:
    while follower.follow():
        pass


async def test_the_log_is_followed_from_its_end_also_when_a_line_comes_in_two_pieces(
    followed: tuple[Path, Told, ViolationFollower],
) -> None:
    path, told, follower = followed
    read_all(follower)
    with path.open("a", encoding="utf-8") as log:
        log.write("[1] nothing of interest\n" + line("one") + line("two")[:50])
        log.flush()
        read_all(follower)
        log.write(line("two")[50:])
        log.flush()
        read_all(follower)
    assert told.all == [("web", "publish", "one"), ("web", "publish", "two")]
    await follower.stop()


async def test_the_log_is_followed_over_a_rotation_and_over_a_cut(
    followed: tuple[Path, Told, ViolationFollower],
) -> None:
    path, told, follower = followed
    with path.open("a", encoding="utf-8") as log:
        log.write(line("before"))
    path.rename(path.with_suffix(".1"))
    read_all(follower)
    path.write_text(line("after"), encoding="utf-8")
    read_all(follower)
    path.write_text(line("cut"), encoding="utf-8")
    read_all(follower)
    path.unlink()
    read_all(follower)
    assert [where for _, _, where in told.all] == ["before", "after", "cut"]
    await follower.stop()


async def test_a_flood_is_told_in_a_bounded_number_of_words_and_counted(
    followed: tuple[Path, Told, ViolationFollower],
) -> None:
    path, told, follower = followed
    with path.open("a", encoding="utf-8") as log:
        log.write(line("flood") * 5_000)
        log.write("x" * 500_000)
    read_all(follower)
    assert len(told.all) == 20
    await follower.stop()
    assert told.all[20:] == [("web", "too_often", "more times")]


async def test_a_log_that_is_not_there_yet_is_followed_once_it_is(tmp_path: Path) -> None:
    told = Told()
    follower = ViolationFollower(tmp_path / "server.log", told, LoopClock())  # type: ignore[arg-type]  # as above
    await follower.start()
    read_all(follower)
    (tmp_path / "server.log").write_text(line("first"), encoding="utf-8")
    read_all(follower)
    assert [where for _, _, where in told.all] == ["first"]
    await follower.stop()
