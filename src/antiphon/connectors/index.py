"""A full-text index over the terms of our own analyser, so that the counts it reports are true under that analyser.

SQLite's FTS5 keeps the postings and ranks by BM25, but its own tokenizers cut words differently from ours: their
document frequencies would be wrong for our terms. So the terms go in already analysed, joined by blanks, and FTS5 is
told to keep them whole (its `ascii` tokenizer: everything beyond ASCII belongs to a term). Term and document
frequencies then come for nothing: the evidence of the first tier (search.md). Texts stay outside SQLite, in a dict:
an index is a cache of its content, made again at every start.

Source: https://www.sqlite.org/fts5.html, sections 4.3.3 (ascii tokenizer), 4.4.1 (contentless tables), 6.1 (fts5vocab).
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from antiphon.connectors.entry import Entry, searchable, storable
from antiphon.decide.analyser import Analyser, default
from antiphon.decide.dedupe import content_hash
from antiphon.errors import Stopping
from antiphon.messages.handler import Counts, Found, Hit, Query
from antiphon.messages.hit import HITS_MAX
from antiphon.messages.lane import Statistics

BATCH_ENTRIES = 500
"""Entries analysed before the lock is taken to store them: searches never wait for an analysis."""
GAP = "  "
"""Two blanks between terms: ` a  a ` holds ` a ` twice, so counting a term is one `str.count`."""

_SCHEMA = """
CREATE VIRTUAL TABLE fts USING fts5(terms, content='', tokenize='ascii');
CREATE VIRTUAL TABLE vocabulary USING fts5vocab(fts, 'row');
"""
_NOT_A_TERM = re.compile("[^a-z0-9\x80-\U0010ffff]|[\ud800-\udfff]")
"""What the `ascii` tokenizer cuts at or folds, and what SQLite cannot store; the analyser never makes such terms."""


@dataclass(frozen=True, slots=True)
class _Row:
    entry: Entry
    terms: str
    length: int
    distinct: int


class TextIndex:
    """An index in memory: searched from any number of threads, changed by one at a time, closed by whoever is last."""

    def __init__(self, analyser: Analyser | None = None) -> None:
        self._analyser = analyser or default()
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False
        )
        self._database.executescript(_SCHEMA)
        self._rows: dict[int, _Row] = {}
        self._keys: dict[str, int] = {}
        self._origins: dict[str, set[int]] = {}
        self._next_key = 1
        self._total_length = 0
        self._postings = 0

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._rows)

    def add(self, entries: Iterable[Entry]) -> int:
        """Store entries as they come, in batches that can be searched at once; return how many there were.

        Raises:
            Stopping: the index is closed.
        """
        count, source = 0, iter(entries)
        while batch := [self._analyse(entry) for entry in islice(source, BATCH_ENTRIES)]:
            self._store(batch)
            count += len(batch)
        return count

    def replace(self, origins: Mapping[str, Iterable[Entry]]) -> None:
        """Put the entries given for each origin in the place of all that it had; no search sees it half done.

        Raises:
            Stopping: the index is closed.
        """
        rows = [self._analyse(entry) for entries in origins.values() for entry in entries]
        with self._lock:
            gone = [key for origin in origins for key in self._origins.get(origin, ())]
        self._store(rows, gone)

    def sync(self, entries: Iterable[Entry]) -> int:
        """Make the index hold exactly these entries, whatever their origin; return how many were new, other or gone.

        Only what differs is analysed again.

        Raises:
            Stopping: the index is closed.
        """
        wanted = {entry.id: entry for entry in map(storable, entries)}
        with self._lock:
            gone = [key for ident, key in self._keys.items() if ident not in wanted]
            held = {ident: self._rows[key].entry for ident, key in self._keys.items()}
        rows = [self._analyse(entry) for ident, entry in wanted.items() if held.get(ident) != entry]
        if rows or gone:
            self._store(rows, gone)
        return len(rows) + len(gone)

    def origins(self) -> frozenset[str]:
        """Return the origins that have entries."""
        with self._lock:
            return frozenset(self._origins)

    def search(self, query: Query) -> Found:
        """Return at most `query.limit` hits by BM25 over any of the question's terms, with the evidence for them.

        A question under another analyser is analysed here; its hits then carry their text instead of counts that
        would mean something else.

        Raises:
            Stopping: the index is closed.
        """
        ours = query.analyser == self._analyser.id
        terms = query.terms if ours else self._analyser.question(query.text)
        with self._lock:
            rows = self._best(terms, max(1, min(query.limit, HITS_MAX)))
            statistics = self._statistics(terms) if ours else None
        if not ours:
            return Found([self._hit(row.entry, terms, text=row.entry.text) for row in rows])
        return Found([self._counted(row, terms) for row in rows], statistics, self._analyser.id)

    def close(self) -> None:
        """Free the memory; later calls raise `Stopping`."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None
            self._rows, self._keys, self._origins = {}, {}, {}

    @property
    def _db(self) -> sqlite3.Connection:
        if self._database is None:
            raise Stopping("the index is closed")
        return self._database

    def _analyse(self, entry: Entry) -> _Row:
        entry = storable(entry)
        terms = self._analyser.tokens(searchable(entry))
        return _Row(entry, f" {GAP.join(terms)} ", len(terms), len(set(terms)))

    def _store(self, rows: Sequence[_Row], gone: Iterable[int] = ()) -> None:
        rows = list({row.entry.id: row for row in rows}.values())
        with self._lock:
            doomed = {key for key in gone if key in self._rows}
            doomed.update(self._keys[row.entry.id] for row in rows if row.entry.id in self._keys)
            keyed = dict(enumerate(rows, self._next_key))
            self._write(doomed, keyed)
            for key in doomed:
                self._forget(key)
            for key, row in keyed.items():
                self._remember(key, row)

    def _write(self, doomed: Iterable[int], keyed: Mapping[int, _Row]) -> None:
        # A contentless table cannot read what it held, so a deletion hands the old terms back to it.
        deletions = [(key, self._rows[key].terms) for key in doomed]
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO fts(fts, rowid, terms) VALUES ('delete', ?, ?)", deletions)
            insertions = ((key, row.terms) for key, row in keyed.items())
            self._db.executemany("INSERT INTO fts(rowid, terms) VALUES (?, ?)", insertions)

    def _remember(self, key: int, row: _Row) -> None:
        self._rows[key] = row
        self._keys[row.entry.id] = key
        self._origins.setdefault(row.entry.origin, set()).add(key)
        self._next_key = key + 1
        self._total_length += row.length
        self._postings += row.distinct

    def _forget(self, key: int) -> None:
        row = self._rows.pop(key)
        del self._keys[row.entry.id]
        siblings = self._origins[row.entry.origin]
        siblings.discard(key)
        if not siblings:
            del self._origins[row.entry.origin]
        self._total_length -= row.length
        self._postings -= row.distinct

    def _best(self, terms: Iterable[str], limit: int) -> list[_Row]:
        match = " OR ".join(_quoted(term) for term in dict.fromkeys(terms) if _is_term(term))
        if not match:
            return []
        found = self._db.execute("SELECT rowid FROM fts WHERE fts MATCH ? ORDER BY rank LIMIT ?", (match, limit))
        return [self._rows[key] for (key,) in found]

    def _statistics(self, terms: Iterable[str]) -> Statistics:
        return Statistics(
            docs=len(self._rows),
            total_length=self._total_length,
            postings=self._postings,
            df=tuple(self._document_frequency(term) for term in terms),
        )

    def _document_frequency(self, term: str) -> int:
        if not _is_term(term):
            return 0
        row = self._db.execute("SELECT doc FROM vocabulary WHERE term = ?", (term,)).fetchone()
        return int(row[0]) if row else 0

    def _counted(self, row: _Row, terms: Sequence[str]) -> Hit:
        tf = tuple(row.terms.count(f" {term} ") if _is_term(term) else 0 for term in terms)
        return self._hit(row.entry, terms, counts=Counts(tf=tf, length=row.length))

    def _hit(self, entry: Entry, terms: Sequence[str], *, text: str = "", counts: Counts | None = None) -> Hit:
        return Hit(
            id=entry.id,
            title=entry.title,
            text=text,
            url=entry.url,
            snippet=self._analyser.snippet(entry.text, terms) or None,
            kind=entry.kind,
            time_ms=entry.time_ms,
            counts=counts,
            hash=content_hash(entry.title, entry.text),
            fields=entry.fields,
        )


def _is_term(term: str) -> bool:
    return bool(term) and not _NOT_A_TERM.search(term)


def _quoted(term: str) -> str:
    # A quoted string is a literal to FTS5: no operator, prefix star or column filter can hide in it.
    return '"' + term.replace('"', '""') + '"'
