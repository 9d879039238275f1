"""Keys and credentials on disk: made once, for this user alone, by one of many; and refused where they are not."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.errors import InvalidName, InvalidSetting, NotAuthenticated, OutOfBudget, SecretsUnusable
from antiphon.identity.credential import FOLDER, OPERATOR, Credential, held, path_of, read, write
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.private import read_private, replace_private
from antiphon.identity.server_config import AccountLimits, configuration, production
from antiphon.identity.vault import Vault
from antiphon.messages.base import Kind

NAMES = {"callout.seed", "issuer.seed", "master.seed", "pepper", "system.seed", "xkey.seed"}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_vault_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        vault = Vault.open(tmp_path / "data")
    finally:
        os.umask(old_mask)
    folder = tmp_path / "data" / "keys"
    assert {path.name for path in folder.iterdir()} == NAMES
    assert mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o600}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["keys"], "nothing else is left"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = Vault.open(tmp_path / "data")
    assert again.public == vault.public
    assert again.pepper == vault.pepper
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert Vault.load(folder).public == vault.public
    assert Vault.open(tmp_path / "other").public != vault.public


def test_its_text_form_has_no_secret(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path)
    text = f"{vault!r} {vault} {vault.public}"
    for secret in (tmp_path / "keys").iterdir():
        assert secret.read_text().strip() not in text
    assert vault.public.issuer in text
    assert [name[0] for name in (vault.public.issuer, vault.public.callout, vault.public.xkey)] == ["A", "U", "X"]


MAKER = """
import sys
from pathlib import Path
from antiphon.identity.vault import Vault
sys.stdin.readline()
vault = Vault.open(Path(sys.argv[1]))
print(vault.public, vault.pepper.hex())
"""


def test_processes_that_make_it_at_once_have_the_same_keys(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAKER, str(tmp_path / "data")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    makers = [subprocess.Popen(command, **pipes, text=True) for _ in range(4)]  # type: ignore[call-overload]  # pipes
    for maker in makers:
        maker.stdin.write("go\n")
        maker.stdin.flush()
    said = {maker.communicate()[0] for maker in makers}
    assert len(said) == 1
    vault = Vault.open(tmp_path / "data")
    assert said == {f"{vault.public} {vault.pepper.hex()}\n"}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["keys"]


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_is_open_to_others_is_refused(tmp_path: Path, name: str, bits: int) -> None:
    Vault.open(tmp_path)
    (tmp_path / "keys" / name).chmod(bits)
    with pytest.raises(SecretsUnusable, match=rf"{name} is open to other users \(mode {bits:o}\): chmod 600 it"):
        Vault.open(tmp_path)


def test_a_folder_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    Vault.open(tmp_path)
    (tmp_path / "keys").chmod(0o750)
    with pytest.raises(SecretsUnusable, match="chmod 700"):
        Vault.open(tmp_path)


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "bytes", "other", "large", "folder", "pipe"])
def test_a_damaged_vault_is_refused_and_left_as_it_is(tmp_path: Path, name: str, damage: str) -> None:
    Vault.open(tmp_path)
    path = tmp_path / "keys" / name
    text = path.read_text()
    if damage in ("missing", "folder", "pipe"):
        path.unlink()
    if damage == "folder":
        path.mkdir(mode=0o700)
    elif damage == "pipe":
        os.mkfifo(path, 0o600)
    elif damage != "missing":
        other = KeyPair.make(Role.SERVER).seed().encode()
        path.write_bytes(
            {"empty": b"", "cut": text[:20].encode(), "bytes": b"\xff\xfe", "other": other, "large": b"A" * 70_000}[
                damage
            ]
        )
    with pytest.raises(SecretsUnusable) as caught:
        Vault.open(tmp_path)
    assert name in caught.value.text or "keys" in caught.value.text
    assert text.strip() not in caught.value.text
    assert path.exists() == (damage != "missing"), "and no new one is made in its place"


def test_a_folder_of_which_only_a_part_was_copied(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    with pytest.raises(SecretsUnusable, match="is missing: put it back"):
        Vault.open(tmp_path)
    with pytest.raises(SecretsUnusable):
        Vault.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSetting):
        Vault.open(tmp_path / "file")
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "keys").write_text("")
    with pytest.raises(SecretsUnusable):
        Vault.open(tmp_path / "data")


def test_the_servers_configuration_has_no_secret(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path)
    text = production(vault.public, AccountLimits(connections=7))
    assert configuration(vault.public, AccountLimits(connections=7)) in text
    assert "max_connections: 7\n" in text
    for secret in (tmp_path / "keys").iterdir():
        assert secret.read_text().strip() not in text
    for name in (
        vault.public.issuer,
        vault.public.callout,
        vault.public.master,
        vault.public.system,
        vault.public.xkey,
    ):
        assert name in text
    assert "no_auth_user:" not in text


SEED = KeyPair.make(Role.USER).seed()
MINE = Credential(
    name="docs",
    kind=Kind.NODE,
    instance="docs-1",
    seed=SEED,
    access="access-secret",
    access_expires_ms=10_000,
    refresh="refresh-secret",
    issuer=KeyPair.make(Role.ACCOUNT).public,
)


def test_a_credential_comes_back_and_is_for_this_user_alone(tmp_path: Path) -> None:
    path = path_of(tmp_path, "docs", "docs-1")
    assert path == tmp_path / "credentials" / "docs.docs-1.json"
    assert path_of(tmp_path, "web").name == "web.json"
    write(path, MINE)
    assert read(path) == MINE
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert MINE.keypair.seed() == SEED
    for name in ("..", "a/b", "*", "a.b"):
        with pytest.raises(InvalidName):
            path_of(tmp_path, name)
        with pytest.raises(InvalidName):
            path_of(tmp_path, "docs", name)


def test_its_secrets_stay_out_of_its_text_form_and_of_errors(tmp_path: Path) -> None:
    assert "secret" not in f"{MINE!r} {MINE}"
    assert SEED not in f"{MINE!r} {MINE}"
    path = tmp_path / "docs.json"
    for changed in (
        {"seed": "SU-planted"},
        {"kind": "planted"},
        {"refresh": "planted" * 1_000},
        {"seed": SEED[:-1] + ("A" if SEED[-1] != "A" else "Q")},
    ):
        replace_private(path, json.dumps(MINE.model_dump(mode="json") | changed))
        with pytest.raises(SecretsUnusable) as caught:
            read(path)
        assert "planted" not in caught.value.text
        assert SEED[:-1] not in caught.value.text
        assert next(iter(changed)) in caught.value.text, "it says which field is wrong"
        assert caught.value.__cause__ is None, "and no traceback shows the rest"


def test_what_to_connect_with() -> None:
    assert MINE.bearer(9_999) == "access-secret"
    assert MINE.bearer(10_000) == "refresh-secret"
    by_key = MINE.model_copy(update={"refresh": None, "api_key": "key-secret"})
    assert by_key.bearer(10_000) == "key-secret"
    assert Credential(name="a", kind=Kind.PUBLISHER, seed=SEED).bearer(0) is None


def test_a_credential_that_is_not_there_or_not_ours(tmp_path: Path) -> None:
    path = path_of(tmp_path, "docs")
    with pytest.raises(NotAuthenticated, match="antiphon login"):
        read(path)
    write(path, MINE)
    path.chmod(0o644)
    with pytest.raises(SecretsUnusable, match="chmod 600"):
        read(path)
    write(path, MINE)
    assert mode(path) == 0o600, "replacing it closes it"
    path.parent.chmod(0o755)
    with pytest.raises(SecretsUnusable, match="chmod 700"):
        write(path, MINE)
    path.write_text("{")
    with pytest.raises(SecretsUnusable, match="delete it"):
        read(path)
    with pytest.raises(InvalidSetting):
        write(tmp_path / "no" / "folder" / "x.json", MINE)
    assert path.parent.name == FOLDER


def test_fields_of_a_later_version_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "docs.json"
    replace_private(path, json.dumps(MINE.model_dump(mode="json") | {"later": 1}))
    assert read(path) == MINE


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "docs.json"
    write(path, MINE)
    with pytest.raises(UnicodeEncodeError):
        replace_private(path, "\ud800")
    assert read(path) == MINE
    assert [one.name for one in tmp_path.iterdir()] == ["docs.json"]
    assert read_private(path).startswith("{")


RENEWER = """
import asyncio, sys
from pathlib import Path
from antiphon.identity.credential import held

async def main():
    for _ in range(int(sys.argv[2])):
        async with held(Path(sys.argv[1]), 60_000) as one:
            used = int(one.credential.refresh)
            await asyncio.sleep(0)
            one.replace(one.credential.model_copy(update={"refresh": str(used + 1)}))
            print(used, flush=True)

asyncio.run(main())
"""


async def test_processes_that_renew_at_once_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "docs.json"
    write(path, MINE.model_copy(update={"refresh": "0"}))
    command = [sys.executable, "-c", RENEWER, str(path), "10"]
    workers = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(3)]
    said = [(await worker.communicate())[0].split() for worker in workers]
    used = sorted(int(number) for numbers in said for number in numbers)
    assert used == list(range(30)), "every token was used once"
    assert read(path).refresh == "30"


async def test_whoever_waits_too_long_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "docs.json"
    with pytest.raises(NotAuthenticated):
        async with held(path):
            pass
    write(path, MINE)
    async with held(path):
        with pytest.raises(OutOfBudget):
            async with held(path, 30):
                pass
    async with held(path, 0) as one:
        assert one.credential == MINE
    assert mode(tmp_path / "docs.json.lock") == 0o600


def test_a_damaged_credential_says_what_to_delete(tmp_path: Path) -> None:
    for name, advice in ((OPERATOR, "antiphon up"), ("web.json", "antiphon login")):
        replace_private(tmp_path / name, "{}")
        with pytest.raises(SecretsUnusable, match=f"delete it, and .*{advice}"):
            read(tmp_path / name)
