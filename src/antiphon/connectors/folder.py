"""A folder as a node: Markdown, HTML and text files, found again as soon as they change.

Markdown is cut at its headings, so that a hit is the section that answers and not the book around it; text and HTML
are one hit a file unless they are long (`reading.sections`). The watcher only says *that* something happened below the
folder; what happened is read from the folder itself, by comparing modification times and sizes. So a moved folder, a
burst that overran the operating system's event queue and a file written before the watch began are all seen.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast
from urllib.parse import quote

import structlog

from antiphon.connectors.base import Indexed, Progress, silent
from antiphon.connectors.entry import Entry
from antiphon.connectors.reading.markup import page
from antiphon.connectors.reading.sections import Section, markdown, pieces, plain, restructured
from antiphon.errors import ContentUnreadable

log = structlog.get_logger(__name__)

MARKDOWN = frozenset({".md", ".markdown", ".mdx"})
HTML = frozenset({".html", ".htm", ".xhtml"})
RESTRUCTURED = frozenset({".rst"})
TEXT = frozenset({".txt", ".text", ".adoc"})
DEBOUNCE_MS = 400
"""Changes this close together are read as one; an editor's save is several events."""
TICK_MS = 500
"""The first comparison comes this soon after the watch begins: a change while it begins sends no event."""
RESCAN_TICKS = 10
"""Later ones come this many ticks apart even without an event: network file systems send none."""
RETRY_MS = 2_000
"""A watch that failed begins again after this; the folder is compared then, so nothing is missed meanwhile."""
REMIND_MS = 60_000
"""A trouble that lasts is told again after this."""

Stamp = tuple[int, int]
"""Modification time in nanoseconds and size in bytes: a file whose stamp is the same is taken to be the same."""


class _SkippedError(Exception):
    """A file that is not read, with the reason."""


@dataclass(frozen=True)
class Folder(Indexed):
    """Markdown, reStructuredText, HTML and text files below a folder, indexed again when they change.

    Hidden files and symbolic links that lead out of the folder are not read; neither are binary files and text that
    is not UTF-8 (or UTF-16 with its mark). They are counted by reason in the log.

    Attributes:
        path: the folder; everything below it is read.
        url_base: where the folder is published, e.g. https://example.org/docs; hits lead there instead of to file://.
        file_bytes_max: larger files are not read.
        files_max: a folder with more files than this is refused.
        bytes_max: a folder with more bytes to read than this is refused; the index takes 3 to 4 times as many.
    """

    kind: ClassVar[str] = "folder"

    path: Path
    _: KW_ONLY
    url_base: str | None = None
    file_bytes_max: int = 1_000_000
    files_max: int = 10_000
    bytes_max: int = 200_000_000

    @cached_property
    def _root(self) -> Path:
        try:
            return self.path.expanduser().resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a circle of links, no such home, a zero byte
            raise ContentUnreadable(f"{self.path} is not a folder: {error}") from error

    @property
    def _name(self) -> str:
        return self._root.name or str(self._root)

    @cached_property
    def _stamps(self) -> dict[str, Stamp]:
        return {}

    def describe(self) -> str:
        """Return the folder's name and what it holds."""
        return f"Documents of the folder {self._name}"

    def topics(self) -> tuple[str, ...]:
        """Return the folder's name."""
        return (self.kind, self._name.lower())

    def entries(self, progress: Progress) -> Iterator[Entry]:
        """Read every file.

        Raises:
            ContentUnreadable: it is not a folder, may not be listed, or holds more files than `files_max`.
        """
        if not self._root.is_dir():
            raise ContentUnreadable(f"{self.path} is not a folder")
        self._stamps.update(self._listed())
        return self._read_all(self._stamps, progress)

    async def watch(self, changed: Callable[[str], None]) -> None:
        """Re-index what changes below the folder until cancelled, also after the folder was gone for a while."""
        from watchfiles._rust_notify import WatchfilesRustInternalError  # noqa: PLC0415 -- as in `_follow`

        told, told_ms = "", 0
        while True:
            try:
                await self._follow(changed)
            except* (OSError, ContentUnreadable, WatchfilesRustInternalError) as errors:
                reason, now_ms = _reason(errors), time.monotonic_ns() // 1_000_000
                if reason != told or now_ms - told_ms >= REMIND_MS:
                    log.warning("folder.not_followed", folder=self._name, reason=reason, served_entries=len(self.index))
                    told, told_ms = reason, now_ms
            await asyncio.sleep(RETRY_MS / 1_000)

    async def _follow(self, changed: Callable[[str], None]) -> None:
        """Re-index what a watch tells of, until it fails: the folder is gone, or a name in it is not UTF-8."""
        import watchfiles  # noqa: PLC0415 -- a compiled extension that only a serving node needs

        await self._update(changed)
        events = watchfiles.awatch(  # pyright: ignore[reportUnknownMemberType] -- trio's event, which it has no types for
            self._root, debounce=DEBOUNCE_MS, rust_timeout=TICK_MS, yield_on_timeout=True
        )
        ticks = 0
        async with aclosing(events):
            async for happened in events:
                ticks += 1
                if happened or ticks % RESCAN_TICKS == 1:
                    await self._update(changed)

    async def _update(self, changed: Callable[[str], None]) -> None:
        summary = await asyncio.to_thread(self.refresh)
        if summary:
            log.info("folder.reindexed", folder=self._name, changes=summary, entries=len(self.index))
            changed(summary)

    def refresh(self) -> str:
        """Compare the folder with the index, re-index what differs, and return what that was; empty for nothing.

        Raises:
            ContentUnreadable: the folder is gone or holds too much; the index holds what was read before.
        """
        present = self._listed()
        known = self._stamps
        differing = {file: stamp for file, stamp in present.items() if known.get(file) != stamp}
        gone = [file for file in known if file not in present]
        if not differing and not gone:
            return ""
        added = sum(file not in known for file in differing)
        by_file: dict[str, list[Entry]] = {file: [] for file in (*differing, *gone)}
        for entry in self._read_all(differing, silent):
            by_file[entry.origin].append(entry)
        self.index.replace(by_file)
        known.clear()
        known.update(present)
        return f"{added} added, {len(differing) - added} modified, {len(gone)} deleted"

    def _listed(self) -> dict[str, Stamp]:
        """Return the stamps; raise `ContentUnreadable` where the folder cannot be listed."""
        try:
            return self._scan()
        except OSError as error:
            raise ContentUnreadable(f"{self.path} cannot be listed: {error.strerror}") from error

    def _scan(self) -> dict[str, Stamp]:
        """Return the stamp of each file that is worth reading, by its path relative to the folder."""
        found, bytes_sum = dict[str, Stamp](), 0
        for path, state in _files(self._root, self._root):
            found[path.relative_to(self._root).as_posix()] = (state.st_mtime_ns, state.st_size)
            bytes_sum += state.st_size if state.st_size <= self.file_bytes_max else 0
            if len(found) > self.files_max:
                raise ContentUnreadable(f"{self.path} holds more than files_max = {self.files_max} files")
            if bytes_sum > self.bytes_max:
                raise ContentUnreadable(f"{self.path} holds more than bytes_max = {self.bytes_max} bytes of text")
        return dict(sorted(found.items()))

    def _read_all(self, files: Mapping[str, Stamp], progress: Progress) -> Iterator[Entry]:
        skipped = Counter[str]()
        for done, (file, (time_ns, _)) in enumerate(files.items(), 1):
            try:
                yield from self._read(file, time_ns // 1_000_000)
            except _SkippedError as reason:
                skipped[str(reason)] += 1
                log.debug("folder.file_skipped", file=file, reason=str(reason))
            progress(done, len(files))
        if skipped:
            log.info("folder.files_skipped", folder=self._name, **skipped)

    def _read(self, file: str, time_ms: int) -> Iterator[Entry]:
        path = self._root / file
        text = _text(path, self._root, self.file_bytes_max)
        url = self._url(file)
        for section in _sections(path, text):
            mark = f"#{section.fragment}" if section.fragment else ""
            link = url + (mark if "~" not in mark else "")
            yield Entry(file + mark, section.title, section.text, link, time_ms=time_ms, origin=file)

    def _url(self, file: str) -> str:
        if self.url_base is None:
            return (self._root / file).as_uri()
        return f"{self.url_base.rstrip('/')}/{quote(os.fsencode(file))}"


def _reason(errors: ExceptionGroup[Exception]) -> str:
    """Return what the first error of a group of groups says."""
    first = errors.exceptions[0]
    return _reason(cast("ExceptionGroup[Exception]", first)) if isinstance(first, ExceptionGroup) else str(first)


def _files(folder: Path, root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the readable kinds of files below `folder` that are not hidden and do not lead out of `root`."""
    with os.scandir(folder) as found:
        children = sorted(found, key=lambda child: child.name)
    for child in children:
        path = Path(child.path)
        if child.name.startswith("."):
            continue
        if child.is_dir(follow_symlinks=False):
            yield from _files_if_allowed(path, root)
        elif path.suffix.lower() in MARKDOWN | HTML | RESTRUCTURED | TEXT and _stays_inside(path, child, root):
            try:
                yield path, child.stat()
            except OSError:  # deleted since it was listed
                continue


def _files_if_allowed(folder: Path, root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        yield from _files(folder, root)
    except OSError as error:
        log.warning("folder.part_skipped", folder=folder.name, reason=error.strerror)


def _stays_inside(path: Path, child: os.DirEntry[str], root: Path) -> bool:
    """Whether a child is a regular file below the root; linked folders are not followed, so there are no circles."""
    try:
        return child.is_file() and (not child.is_symlink() or path.resolve().is_relative_to(root))
    except OSError:
        return False


def _is_below(handle: int, path: Path, root: Path) -> bool:
    """Whether what was opened is a regular file below the root.

    It was when the folder was listed; somebody may have put a link or a pipe in its place since.
    """
    opened, real = os.fstat(handle), path.resolve(strict=True)
    return stat.S_ISREG(opened.st_mode) and real.is_relative_to(root) and os.path.samestat(opened, real.stat())


def _text(path: Path, root: Path, bytes_max: int) -> str:
    """Return the text of a file.

    Raises:
        _SkippedError: it leads out of the root, is too large, unreadable, binary or in another encoding.
    """
    try:
        # not blocking: a pipe would never let go
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as stream:
            if not _is_below(handle, path, root):
                raise _SkippedError("leads_out")
            content = stream.read(bytes_max + 1)
    except OSError as error:
        raise _SkippedError("unreadable") from error
    if len(content) > bytes_max:
        raise _SkippedError("too_large")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise _SkippedError("binary" if b"\0" in content else "not_utf_8") from error
    if "\0" in text:
        raise _SkippedError("binary")
    return text


def _sections(path: Path, text: str) -> Iterator[Section]:
    suffix = path.suffix.lower()
    if suffix in MARKDOWN:
        return markdown(text, path.stem)
    if suffix in RESTRUCTURED:
        return restructured(text, path.stem)
    if suffix in HTML:
        title, words = page(text)
        return pieces(title or path.stem, words, "")
    return plain(text, path.stem)
