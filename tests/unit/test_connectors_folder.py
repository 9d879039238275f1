"""A folder as a node: what is read, what is left out, and that changes are seen by the real watcher."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from antiphon.connectors import folder as module
from antiphon.connectors.folder import Folder
from antiphon.decide.analyser import default
from antiphon.errors import ContentUnreadable
from antiphon.messages.handler import Hit, Query

ANALYSER = default()


def search(folder: Folder, text: str) -> list[Hit]:
    return list(folder.search(Query(text, ANALYSER.question(text), ANALYSER.id, 50)).hits)


def ids(folder: Folder, text: str) -> list[str]:
    return sorted(hit.id for hit in search(folder, text))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "content"
    root.mkdir()
    (root / "start.txt").write_text("always here")
    return root


@pytest.fixture
def folder(root: Path) -> Iterator[Folder]:
    made = Folder(root)
    yield made
    made.close()


def test_markdown_is_cut_at_its_headings(root: Path, folder: Folder) -> None:
    (root / "guide").mkdir()
    (root / "guide" / "a b.md").write_text(
        "# Guide\n\nintro apple\n\n## Install it\n\npip pear\n\n## Install it\n\nagain plum"
    )
    folder.open()
    hits = {hit.id: hit for word in ("apple", "pear", "plum") for hit in search(folder, word)}
    assert {ident: hit.title for ident, hit in hits.items()} == {
        "guide/a b.md#guide": "Guide",
        "guide/a b.md#install-it": "Guide: Install it",
        "guide/a b.md#install-it-1": "Guide: Install it",
    }
    assert hits["guide/a b.md#guide"].url == (root / "guide" / "a b.md").as_uri() + "#guide"
    assert hits["guide/a b.md#guide"].time_ms == (root / "guide" / "a b.md").stat().st_mtime_ns // 1_000_000


def test_html_is_read_without_scripts_and_styles(root: Path, folder: Folder) -> None:
    page = "<html><head><title>A &amp; B</title><style>css{}</style></head><body><p>ap<b>ple</b><script>evil()</script>"
    (root / "page.HTML").write_text(page)
    folder.open()
    (hit,) = search(folder, "apple")
    assert (hit.id, hit.title, hit.snippet) == ("page.HTML", "A & B", "apple")
    assert search(folder, "css evil") == []


def test_addresses_lead_to_where_the_folder_is_published(root: Path) -> None:
    (root / "a #1.txt").write_text("apple")
    folder = Folder(root, url_base="https://example.org/docs/")
    folder.open()
    assert [hit.url for hit in search(folder, "apple")] == ["https://example.org/docs/a%20%231.txt"]
    folder.close()


def test_only_readable_text_inside_the_folder_is_read(root: Path, folder: Folder, tmp_path: Path) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text("secret word")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.txt").write_text("secret word")
    (root / "link.txt").symlink_to(outside)
    (root / "broken.txt").symlink_to(root / "nowhere.txt")
    (root / "circle").symlink_to(root)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "inside.txt").symlink_to(root / "start.txt")
    (root / ".hidden.txt").write_text("secret word")
    (root / ".git").mkdir()
    (root / ".git" / "config.txt").write_text("secret word")
    (root / "binary.txt").write_bytes(b"secret word\0\1\2")
    (root / "latin.txt").write_bytes("secret wörd".encode("latin-1"))
    (root / "large.txt").write_text("secret word " * 100_000)
    (root / "picture.png").write_text("secret word")
    (root / "folder.txt").mkdir()
    os.mkfifo(root / "pipe.txt")
    (root / "utf16.txt").write_text("word", encoding="utf-16")
    folder.open()
    assert ids(folder, "secret") == []
    assert ids(folder, "word") == ["utf16.txt"]
    assert ids(folder, "always") == ["inside.txt", "start.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_name_that_is_no_text_is_read(root: Path, folder: Folder) -> None:
    (root / os.fsdecode(b"\xff.txt")).write_text("word")
    folder.open()
    assert [(hit.id, hit.url) for hit in search(folder, "word")] == [("\ufffd.txt", root.as_uri() + "/%FF.txt")]


@pytest.mark.parametrize("path", ["missing", "content/start.txt", "a\0b", "~no-such-user-here/x"])
def test_what_is_no_folder_is_refused(root: Path, tmp_path: Path, path: str) -> None:
    folder = Folder(tmp_path / path if "~" not in path else Path(path))
    with pytest.raises(ContentUnreadable):
        folder.open()
    folder.close()


def test_an_empty_folder_is_served_and_filled_later(root: Path, folder: Folder) -> None:
    (root / "start.txt").unlink()
    folder.open()
    assert (folder.size(), ids(folder, "apple")) == (0, [])
    (root / "first.txt").write_text("apple")
    assert folder.refresh() == "1 added, 0 modified, 0 deleted"
    assert ids(folder, "apple") == ["first.txt"]


def test_markdown_of_headings_only_is_found_by_them(root: Path, folder: Folder) -> None:
    (root / "plan.md").write_text("# Orchard\n\n## Apples\n\n## Pears\n")
    (root / "lone.md").write_text("# Cellar\n")
    (root / "front.md").write_text("---\ntitle: Attic\n---\n")
    folder.open()
    assert ids(folder, "pears") == ["plan.md#pears"]
    assert ids(folder, "orchard") == ["plan.md#apples", "plan.md#pears"], "a bare title is in the titles below it"
    assert (ids(folder, "cellar"), ids(folder, "attic")) == (["lone.md"], ["front.md"])


def test_a_folder_with_too_much_is_refused(root: Path) -> None:
    full = Folder(root, files_max=1)
    (root / "two.txt").write_text("word")
    with pytest.raises(ContentUnreadable, match="files_max = 1"):
        full.open()
    with pytest.raises(ContentUnreadable, match="bytes_max = 5"):
        Folder(root, bytes_max=5).open()


def test_progress_counts_the_files(root: Path, folder: Folder) -> None:
    (root / "two.txt").write_text("word")
    seen = list[tuple[int, int]]()
    folder.open(lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


async def test_changes_are_found_as_soon_as_the_watcher_tells(root: Path, folder: Folder) -> None:
    (root / "old.md").write_text("# One\n\napple\n\n# Two\n\npear")
    folder.open()
    changes: asyncio.Queue[str] = asyncio.Queue()
    watching = asyncio.create_task(folder.watch(changes.put_nowait))
    try:
        (root / "new.txt").write_text("plum")
        assert await asyncio.wait_for(changes.get(), 30) == "1 added, 0 modified, 0 deleted"
        assert ids(folder, "plum") == ["new.txt"]
        (root / "old.md").write_text("# One\n\ncherry")
        assert await asyncio.wait_for(changes.get(), 30) == "0 added, 1 modified, 0 deleted"
        (hit,) = search(folder, "apple pear cherry")
        assert (hit.id, hit.time_ms) == ("old.md#one", (root / "old.md").stat().st_mtime_ns // 1_000_000)
        (root / "old.md").unlink()
        assert await asyncio.wait_for(changes.get(), 30) == "0 added, 0 modified, 1 deleted"
        assert ids(folder, "cherry") == []
    finally:
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching


def test_a_moved_folder_moves_its_hits(root: Path, folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "a.txt").write_text("apple")
    folder.open()
    (tmp_path / "draft").rename(root / "final")
    assert folder.refresh() == "1 added, 0 modified, 0 deleted"
    assert ids(folder, "apple") == ["final/a.txt"]
    (root / "final").rename(tmp_path / "withdrawn")
    assert folder.refresh() == "0 added, 0 modified, 1 deleted"
    assert ids(folder, "apple") == []
    assert folder.refresh() == ""


def test_a_folder_that_is_gone_is_still_served(root: Path, folder: Folder, tmp_path: Path) -> None:
    folder.open()
    root.rename(tmp_path / "moved")
    with pytest.raises(ContentUnreadable, match="cannot be listed"):
        folder.refresh()
    assert ids(folder, "always") == ["start.txt"]


@asynccontextmanager
async def watched(folder: Folder) -> AsyncIterator[asyncio.Queue[str]]:
    """Give the changes that a watch tells; what ends the watch is raised instead of waited for."""
    changes: asyncio.Queue[str] = asyncio.Queue()
    watching = asyncio.create_task(folder.watch(changes.put_nowait))
    try:
        yield changes
        assert not watching.done(), watching.exception()
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def test_a_name_that_is_not_utf_8_does_not_end_the_watch(
    root: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_MS", 10)
    folder.open()
    async with watched(folder) as changes:
        for number in range(3):
            (root / os.fsdecode(b"%d\xff.md" % number)).write_text("plum")
            assert await asyncio.wait_for(changes.get(), 30) == "1 added, 0 modified, 0 deleted"
        assert len(ids(folder, "plum")) == 3


async def test_a_deleted_folder_is_waited_for(root: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_MS", 10)
    folder.open()
    with capture_logs() as logs:
        async with watched(folder) as changes:
            (root / "new.txt").write_text("plum")
            assert await asyncio.wait_for(changes.get(), 30) == "1 added, 0 modified, 0 deleted"
            shutil.rmtree(root)
            async with asyncio.timeout(30):
                while not any(log["event"] == "folder.not_followed" for log in logs):  # noqa: ASYNC110 - a log has no event
                    await asyncio.sleep(0.01)
            served = ids(folder, "plum always")
            await asyncio.to_thread(root.mkdir)
            (root / "later.txt").write_text("pear")
            async with asyncio.timeout(30):
                while ids(folder, "pear") == []:
                    await changes.get()
    told = [log["served_entries"] for log in logs if log["event"] == "folder.not_followed"]
    assert told
    assert set(told) == {len(served)}, "what is served meanwhile is told"


def test_a_file_deleted_while_it_is_read_is_left_out(
    root: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "gone.txt").write_text("word")
    scan = module.Folder._scan

    def and_delete(self: Folder) -> dict[str, module.Stamp]:
        found = scan(self)
        (root / "gone.txt").unlink()
        return found

    monkeypatch.setattr(module.Folder, "_scan", and_delete)
    folder.open()
    assert ids(folder, "word always") == ["start.txt"]
