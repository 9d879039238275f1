"""Attacks by what is said: too much, too deep, packed, or meant for a terminal, a log, a database or a file system."""

from __future__ import annotations

import gzip
import io
import json
import re
import sqlite3
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from antiphon import Hit, logs
from antiphon.actors import audit
from antiphon.bus import bus as bus_module
from antiphon.bus.codec import decode
from antiphon.cli import show
from antiphon.connectors import folder as folder_module
from antiphon.connectors import sqlite as sqlite_module
from antiphon.connectors.folder import Folder
from antiphon.connectors.sqlite import Sqlite
from antiphon.decide.grants import Grants
from antiphon.decide.login import Labelled, Login
from antiphon.decide.violations import Violation
from antiphon.errors import AntiphonError, ContentUnreadable, InvalidName, SecretsUnusable
from antiphon.identity import credential
from antiphon.identity.connect import connect
from antiphon.identity.credential import Credential
from antiphon.identity.keypair import KeyPair, Role
from antiphon.messages.base import Kind
from antiphon.messages.search import SearchAsk
from arena import Scene, both, drawn, happens, opened, yes

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "tr0ub4dor"


async def asked(scene: Scene, data: bytes, headers: dict[str, str] | None = None, *, budget_ms: int = 5_000) -> str:
    """What becomes of a search: `answered`, or the code that it is refused with."""
    client = await scene.client()
    try:
        await client.bus.ask_bytes(
            scene.subject(f"search.ask.{client.name}"), data, headers=headers, budget_ms=budget_ms
        )
    except AntiphonError as error:
        return error.code
    return "answered"


@both
async def test_t54_a_message_that_is_too_large(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher. Wants: that masters parse megabytes that he need not even fill with meaning.

    Defence: each message has a bound, which is asked before it is parsed. Source: OWASP API Security 2023, API4; STYLE,
    "Bounded everything".
    """
    if not is_defended:
        monkeypatch.setattr(SearchAsk, "size_max", 2**30)
    large = orjson.dumps({"query": "whales", "unknown": "x" * 900_000})
    assert await asked(scene, large) == ("oversize" if is_defended else "answered")


@both
async def test_t55_a_message_that_is_nested_too_deep(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher. Wants: that a parser follows him until its stack is at an end.

    Defence: messages are read by a parser that has a bound of its own, and refused. Source: CWE-674; RFC 8259, 9.
    """
    if not is_defended:
        monkeypatch.setattr(bus_module, "decode", lambda kind, data: kind.model_validate(json.loads(data)))
    deep = b'{"query": "whales", "unknown": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    assert await asked(scene, deep, budget_ms=5_000 if is_defended else 300) == (
        "malformed" if is_defended else "out_of_budget"
    )
    assert await asked(scene, b'{"query": "whales"}') == "answered"


@both
async def test_t56_a_message_that_swells(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: a publisher. Wants: that a kilobyte becomes a gigabyte in a master.

    Defence: nothing is ever unpacked. The server has no port for WebSockets, where it would; nothing in the source
    imports what unpacks. Source: OWASP ASVS 5.0, 5.2.3; CWE-409.
    """
    swollen: list[int] = []

    def unpacking(kind: Any, data: bytes) -> Any:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
            swollen.append(len(data))
        return decode(kind, data)

    if not is_defended:
        monkeypatch.setattr(bus_module, "decode", unpacking)
    bomb = gzip.compress(b'{"query": "' + b" " * 50_000_000 + b'"}')
    assert len(bomb) < SearchAsk.size_max
    said = await asked(scene, bomb, {"Content-Encoding": "gzip"})
    assert said == ("malformed" if is_defended else "oversize")
    assert swollen == ([] if is_defended else [50_000_013])
    [ports] = (scene.home / "ports").glob("*.ports")
    assert list(orjson.loads(ports.read_bytes())) == ["nats"]
    unpackers = re.compile(
        r"^\s*(?:import|from) (?:gzip|bz2|lzma|zipfile|tarfile|brotli|zstandard)\b|decompress", re.MULTILINE
    )
    source = Path(bus_module.__file__).parents[1]
    assert [path for path in source.rglob("*.py") if unpackers.search(path.read_text(encoding="utf-8"))] == []


@both
async def test_t57_a_name_that_is_sql(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever may say which columns of a database are served. Wants: another table.

    Defence: a name of a table or column must be one that the file's own schema holds, letter for letter, and is quoted.
    Source: OWASP, SQL injection prevention (identifiers cannot be parameters); `connectors/sqlite.py`.
    """
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("CREATE TABLE docs (body TEXT)")
        database.execute("CREATE TABLE secrets (secret TEXT)")
        database.execute("INSERT INTO docs VALUES ('whales')")
        database.execute("INSERT INTO secrets VALUES (?)", (SECRET,))
    database.close()
    evil = 'body" || (SELECT secret FROM secrets) || "body'
    if not is_defended:
        monkeypatch.setattr(Sqlite, "_known", lambda _self, _schema, name: name)
        monkeypatch.setattr(sqlite_module, "_quoted", lambda name: f'"{name}"')
    content = Sqlite(tmp_path / "shop.db", table="docs", columns=(evil,))
    if is_defended:
        with pytest.raises(ContentUnreadable):
            content.open()
        content = Sqlite(tmp_path / "shop.db", table="docs")
    content.open()
    node, client = await scene.node(content.search), await scene.client()
    for query in ("whales", f"{SECRET}", "'; DROP TABLE docs; --", '" OR 1=1 --', "body:* NEAR(x)"):
        hits = (await client.search(query, nodes=[node.name])).hits
        assert (SECRET in repr(hits)) is (not is_defended and bool(hits))
    assert ((await client.search("whales", nodes=[node.name])).hits != ()) is is_defended
    content.close()


@both
@pytest.mark.parametrize("when", ["listed", "read"])
async def test_t58_a_link_that_leads_out_of_a_folder(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool, when: str
) -> None:
    """Attacker: whoever may put files into a folder that is served. Wants: a file beside it, by a link or by `..`.

    Defence: a link is followed only as far as it stays below the folder, when it is listed and again when it is read:
    one that was put there between the two leads nowhere either. Source: CWE-59, CWE-367; `connectors/folder.py`.
    """
    root = tmp_path / "content"
    root.mkdir()
    (tmp_path / "keys.md").write_text(f"# Keys\n\n{SECRET}")
    (root / "open.md").write_text("# Open\n\nwhales")
    (root / "link.md").symlink_to(tmp_path / "keys.md")
    (root / "up.md").symlink_to(Path("..") / "keys.md")
    (root / "folder").symlink_to(tmp_path)
    check, other = ("_stays_inside", "_is_below") if when == "listed" else ("_is_below", "_stays_inside")
    monkeypatch.setattr(folder_module, other, yes)
    if not is_defended:
        monkeypatch.setattr(folder_module, check, yes)
    content = Folder(root)
    content.open()
    node, client = await scene.node(content.search), await scene.client()
    assert [hit.id for hit in (await client.search("whales", nodes=[node.name])).hits] == ["open.md#open"]
    found = (await client.search(SECRET, nodes=[node.name])).hits
    assert [hit.id for hit in found] == ([] if is_defended else ["link.md#keys"])
    content.close()


@both
@pytest.mark.parametrize("name", ["../planted", "../../planted", "/planted", "a/../../planted", "planted\0"])
async def test_t59_a_name_that_is_a_path(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool, name: str
) -> None:
    """Attacker: whoever may choose the name that a program logs in under. Wants: a file of his in the data directory.

    Defence: a name is a subject token before it is a part of a path, and a file's name twice. Source: CWE-22;
    `identity/credential.py`, `path_of`.
    """
    mine = Credential(name="web", kind=Kind.PUBLISHER, seed=KeyPair.make(Role.USER).seed())
    with pytest.raises(InvalidName):
        await connect(name, data=scene.home)
    if is_defended:
        for how in ((name,), ("web", name)):
            with pytest.raises(InvalidName):
                credential.path_of(scene.home, *how)
        return
    monkeypatch.setattr(credential, "token", lambda text: text)
    where = credential.path_of(scene.home, name)
    folder = (scene.home / credential.FOLDER).resolve()
    is_out = "\0" not in str(where) and not where.resolve().is_relative_to(folder)
    assert is_out or "\0" in name
    if name == "../planted":
        folder.mkdir(mode=0o700, exist_ok=True)
        credential.write(where, mine)
        assert (scene.home / "planted.json").exists()


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


@pytest.fixture(params=["terminal", "json"])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The masters' log, as an operator or a program sees it."""
    stream = Screen() if request.param == "terminal" else io.StringIO()
    logs.configure("debug", stream=stream)
    monkeypatch.setattr("antiphon.actors.audit.log", structlog.get_logger("antiphon.identity"))
    return stream


COLOURS = re.compile(r"\x1b\[[0-9;]{0,4}m")
FORGED = "web\n12:00:01 error   identity.kicked  who=boss\x1b]0;pwned\x07\x1b[2J\x9b31m\u202e"


@both
async def test_t60_a_name_that_writes_the_log(
    scene: Scene, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: anybody who reaches the port. Wants: lines of his own in the log, or an operator's terminal.

    Defence: names in audits are made printable, and no control character leaves as it is: neither a line feed nor ESC
    nor its form in one character. Source: OWASP, Log injection; CWE-117; CWE-150; `logs.py`.
    """
    if not is_defended:
        monkeypatch.setattr(logs, "escaped", lambda text: text)
    plain, before = audit._plain, len(scene.arena.audited)
    # what the audit makes printable needs no escaping: each holds alone, so it is off while the log is looked at
    monkeypatch.setattr(audit, "_plain", lambda text: text[:200])
    assert not await scene.is_let_in(KeyPair.make(Role.USER), forged_token(await scene.party()), name=FORGED)
    assert await happens(lambda: "refused" in screen.getvalue())
    lines = COLOURS.sub("", screen.getvalue()).splitlines()
    assert any(char in "".join(lines) for char in "\x9b\x1b\u202e") is not is_defended
    is_forged = any(line.startswith("12:00:01 error") for line in lines)
    assert is_forged is (not is_defended and screen.isatty())
    assert screen.isatty() or all("event" in json.loads(line) for line in screen.getvalue().split("\n")[:-1])
    assert await happens(lambda: any(fact.what == "refused" for fact in scene.arena.audited[before:]))
    if is_defended:
        monkeypatch.setattr(audit, "_plain", plain)
        before = len(scene.arena.audited)
        assert not await scene.is_let_in(KeyPair.make(Role.USER), "no token", name=FORGED)
    assert await happens(lambda: any(fact.what == "refused" for fact in scene.arena.audited[before:]))
    told = [fact.who for fact in scene.arena.audited[before:] if fact.what == "refused"]
    assert all(name.isprintable() for name in told) is is_defended, "who subscribes to the facts is as well off"


def forged_token(party: Any) -> str:
    """A token that is none."""
    return str(party.grant.access)[:-4] + "AAAA"


@both
async def test_t61_a_title_that_drives_a_terminal(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_defended: bool,
) -> None:
    """Attacker: a node. Wants: the terminal of whoever searches: its title, its clipboard, its cursor.

    Defence: what comes from elsewhere is made one harmless line before it is shown. Source: CWE-150; `cli/safe.py`.
    """
    title = "whales\x1b]52;c;cm0gLXJmIH4=\x07\x1b[2J\x9b1A\r\n1. forged  [boss]"
    node = await scene.node(lambda _query: [Hit(id="x\x1b[31m", title=title, text=f"whales {title}", url="x:\x1b[5m")])
    answer = await (await scene.client()).search("whales", nodes=[node.name])
    assert answer.hits
    if not is_defended:
        monkeypatch.setattr(show, "line", lambda text: text)
    for form in ("table", "csv", "jsonl", "json"):
        show.answer(answer, form)
    shown = capsys.readouterr().out
    assert ("\x1b" in shown or "\x9b" in shown) is not is_defended
    assert any(line.startswith("1. forged") for line in shown.splitlines()) is not is_defended


@both
async def test_t62_a_name_that_accuses_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher. Wants: that the record says that another did what he may not.

    Defence: the server quotes what a client says of itself, and a line of its log is read as a whole: what counts is
    the label that the callout gave. Source: CWE-117; `decide/violations.py`.
    """
    victim = drawn("victim")

    def naive(line: str, _account: str) -> Violation | None:
        found = re.search(r'user:([^"\\]+).*?(Publish|Subscription) Violation', line)
        user = Labelled.of(found[1]) if found else None
        return None if user is None else Violation(user, "publish", "x", "y")

    if not is_defended:
        monkeypatch.setattr("antiphon.actors.violations.read", naive)
    async with opened(tmp_path / "data") as arena, arena.scene() as scene:
        party = await scene.party()
        label = Login(Kind.OPERATOR, victim, None, Grants((), ()), 0).label
        line = f'x" - "APP/user:{label}" - Publish Violation - Subject "$JS.API.STREAM.DELETE.x"'
        attacker = await scene.raw(
            party, name=f"{line}\n[1] 2026/11/23 09:28:18.184544 [ERR] 127.0.0.1:1 - cid:1 - {line}"
        )
        await attacker.send("$JS.API.STREAM.LIST")
        assert await happens(lambda: any(fact.what == "violated" for fact in arena.audited))
        [fact] = [fact for fact in arena.audited if fact.what == "violated"]
        assert fact.who == (party.name if is_defended else victim)


@both
async def test_t63_others_read_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: another user of the machine, or a backup that keeps no modes. Wants: the keys, which are the fabric.

    Defence: secrets are made for one user, and refused where others may read them, with the command that mends it.
    Source: OWASP ASVS 5.0, 13.3.1; FACTS, hole 6.
    """
    async with opened(tmp_path / "data"):
        pass
    for path in ("keys", "keys/issuer.seed", "keys/pepper", "operator.json", "."):
        assert (tmp_path / "data" / path).stat().st_mode & 0o077 == 0, path
    (tmp_path / "data" / "keys" / "issuer.seed").chmod(0o644)
    if not is_defended:
        monkeypatch.setattr("antiphon.identity.private.check_private", lambda *_how: None)
    with pytest.raises(SecretsUnusable, match="chmod 600") if is_defended else nullcontext():
        async with opened(tmp_path / "data") as arena:
            assert arena.role.gate is not None
