"""Identities from the command line, as real processes: operators, other machines, production servers, kill -9."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_process import Done, Fabric, fabric, until

from antiphon.bus.server import find_binary
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.private import create_private

CHECKS = [
    "files",
    "disk",
    "connection",
    "mode",
    "server",
    "versions",
    "clock",
    "permissions",
    "jetstream",
    "credential",
]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Fabric]:
    with fabric(tmp_path) as one:
        yield one


def elsewhere(here: Fabric, name: str = "b", **more: str) -> dict[str, str]:
    """The environment of another machine, that knows where the server is and nothing else."""
    home = here.data.parent / name
    home.mkdir(exist_ok=True)
    return {"ANTIPHON_DATA": str(home / "data"), "HOME": str(home), "ANTIPHON_NATS": here.url()} | more


def docs(here: Fabric) -> str:
    folder = here.data.parent / "docs"
    folder.mkdir(exist_ok=True)
    (folder / "whale.md").write_text("# Whales\n\nWhales sing.\n", encoding="utf-8")
    return str(folder)


def key_of(here: Fabric, name: str, *more: str) -> str:
    assert here.run("identity", "create", name, *more).code == 0
    done = here.run("key", "create", name)
    assert done.code == 0, done.err
    return done.out.strip()


def findings(done: Done) -> dict[str, dict[str, str]]:
    return {one["check"]: one for one in done.json}


# -- operators


def test_an_operator_makes_shows_shuts_out_and_lets_in(here: Fabric) -> None:
    here.up()
    made = here.run("identity", "create", "web", "--groups", "staff,eu", "-o", "json")
    assert made.json[0] == {
        "name": "web",
        "kind": "publisher",
        "groups": ["staff", "eu"],
        "is_delegate": False,
        "status": "active",
        "created_ms": made.json[0]["created_ms"],
        "not_before_ms": 0,
        "instances_max": 256,
        "families": 0,
        "keys": 0,
    }
    assert "antiphon key create web" in made.err
    assert here.run("identity", "create", "web", "--kind", "analyst").code == 2
    assert here.run("identity", "create", "master").code == 8
    changed = here.run("identity", "update", "web", "--groups", "", "--delegate", "yes", "-o", "json")
    assert (changed.json[0]["groups"], changed.json[0]["is_delegate"]) == ([], True)
    assert here.run("identity", "update", "web").code == 2
    assert here.run("identity", "show", "nobody").code == 2

    key = here.run("key", "create", "web", "--label", "the shop", "--keep", "30d", "-o", "json").json
    assert set(key) == {"id", "key", "identity", "expires_ms"}
    shown = here.run("identity", "show", "web", "-o", "json").json
    assert set(shown) == {"identity", "families", "keys", "invites"}
    [line] = shown["keys"]
    assert set(line) == {"id", "identity", "label", "created_ms", "expires_ms", "is_revoked"}
    assert (line["id"], line["label"]) == (key["id"], "the shop")
    assert here.run("key", "ls", "web", "-o", "json").json == [line]
    assert key["id"] in here.run("key", "ls").out
    for wrong in ("30", "d", "0d", "30y", "-1d"):
        assert here.run("key", "create", "web", f"--keep={wrong}").code == 2

    assert here.run("identity", "suspend", "web", "-o", "json").json[0]["status"] == "suspended"
    assert here.run("identity", "resume", "web", "-o", "json").json[0]["status"] == "active"
    assert here.run("identity", "suspend").code == 2
    done = here.run("key", "revoke", key["id"], "-o", "json")
    assert done.json == [{"what": "key", "id": key["id"]}]
    assert here.run("identity", "revoke", "web", "-o", "json").json == [{"what": "identity", "id": "web"}]
    assert here.run("identity", "revoke", "--family", "a" * 16).code == 2
    assert here.run("identity", "revoke").code == 2
    names = [one["name"] for one in here.run("identity", "ls", "-o", "json").json]
    assert names == sorted(names)
    assert "web" in names
    assert here.run("identity", "ls", "--kind", "node", "-o", "json").json == []

    ring = here.run("key", "rotate", "-o", "json").json
    assert set(ring) == {"next", "active", "retiring"}
    assert here.run("key", "rotate", "--expel", ring["retiring"][0], "-o", "json").json["retiring"] == []
    assert here.run("key", "rotate", "--expel", "nothing").code == 8
    assert here.run("identity", "ls").code == 0, "the operator's own token was expelled, and he has got another"


def test_a_secret_is_shown_once_and_on_stdout_alone(here: Fabric) -> None:
    process = here.up()
    made = here.run("key", "create", user := here.run("whoami", "-o", "json").json["name"])
    key = made.out.strip()
    assert made.out == f"{key}\n"
    assert key.startswith("ak_")
    assert key not in made.err
    assert f"--name {user}" in made.err
    invited = here.run("node", "invite", "docs", "--instances", "2", "--keep", "1d")
    token = invited.out.strip()
    assert token.startswith("jt_")
    assert token not in invited.err
    assert here.run("login", "--name", user, stdin=key, environment=elsewhere(here)).code == 0
    told = [here.log(process), *(here.run(*words).out for words in (["identity", "show", user], ["key", "ls"]))]
    secrets = [key, token, *(path.read_text().strip() for path in (here.data / "keys").iterdir())]
    operator = json.loads((here.data / "operator.json").read_text())
    secrets += [operator[one] for one in ("seed", "access", "api_key")]
    for text in told:
        assert not [secret for secret in secrets if secret in text]
    assert not [secret for secret in secrets if secret in (here.data / "server.conf").read_text()]


def test_whoami_and_doctor_on_a_machine_that_is_well(here: Fabric) -> None:
    here.up()
    who = here.run("whoami", "-o", "json").json
    assert set(who) == {
        *("name", "kind", "groups", "is_delegate", "is_suspended", "mode", "master", "wall_ms", "version", "credential")
    }
    assert (who["kind"], who["mode"], who["master"]) == ("operator", "callout", "master")
    assert who["credential"]["file"] == str(here.data / "operator.json")
    assert "renewed by itself" in here.run("whoami").out
    done = here.run("doctor", "-o", "json")
    assert (done.code, done.err) == (0, "nothing is wrong\n")
    assert [one["check"] for one in done.json] == CHECKS
    assert [one for one in done.json if one["status"] != "ok"] == []
    assert set(done.json[0]) == {"check", "status", "says", "advice"}
    assert here.run("doctor").out.count("ok\t") == len(CHECKS)


def test_doctor_says_what_to_do(here: Fabric) -> None:
    nothing = here.run("doctor", "-o", "json")
    assert nothing.code == 1
    assert "antiphon up" in findings(nothing)["connection"]["advice"]
    here.up()
    stranger = here.run("doctor", "-o", "json", environment=elsewhere(here))
    assert stranger.code == 1
    assert "antiphon login" in findings(stranger)["connection"]["advice"]
    (here.data / "keys" / "pepper").chmod(0o644)
    done = here.run("doctor", "-o", "json")
    assert done.code == 1
    assert findings(done)["files"]["advice"].startswith(f"chmod 600 {here.data / 'keys' / 'pepper'}")
    assert done.err == "to be mended: files\n"


# -- other machines


def test_an_api_key_makes_another_machine_a_publisher(here: Fabric) -> None:
    here.up()
    here.serve("folder", docs(here), "--name", "docs")
    key = key_of(here, "web", "--groups", "staff")
    there = elsewhere(here)
    refused = here.run("search", "whales", environment=there)
    assert refused.code == 8
    assert "not_authenticated" in refused.err
    assert here.run("login", "--name", "other", stdin=key, environment=there).code == 8
    assert here.run("login", "--name", "web", stdin="ak_nonsense", environment=there).code == 2
    assert here.run("login", "--name", "web", stdin="", environment=there).code == 2
    done = here.run("login", "--name", "web", "-o", "json", stdin=f"{key}\n", environment=there)
    assert done.code == 0, done.err
    file = Path(there["ANTIPHON_DATA"]) / "credentials" / "web.json"
    assert done.json == {
        "name": "web",
        "kind": "publisher",
        "instance": None,
        "groups": ["staff"],
        "file": str(file),
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert here.run("search", "whales", "-o", "json", environment=there).json["hits"]
    assert here.run("whoami", "-o", "json", environment=there).json["name"] == "web"
    assert here.run("doctor", environment=there).code == 0
    listing = here.run("identity", "ls", environment=there)
    assert listing.code == 8
    assert "not_allowed" in listing.err

    bare = elsewhere(here, "c")
    assert here.run("search", "whales", "--credentials", str(file), environment=bare).code == 0
    assert here.run("search", "whales", environment=bare | {"ANTIPHON_CREDENTIALS": str(file)}).code == 0
    by_token = bare | {"ANTIPHON_TOKEN": key, "ANTIPHON_NAME": "web"}
    assert here.run("search", "whales", environment=by_token).code == 0
    assert not Path(bare["ANTIPHON_DATA"]).exists(), "nothing was kept there"

    here.run("identity", "suspend", "web")
    assert here.run("search", "whales", environment=there).code == 8
    here.run("identity", "resume", "web")
    assert here.run("search", "whales", environment=there).code == 0
    file.chmod(0o644)
    assert "chmod 600" in here.run("search", "whales", environment=there).err


def test_an_invited_node_serves_and_restarts_without_a_token(here: Fabric) -> None:
    here.up()
    token = here.run("node", "invite", "docs").out.strip()
    there = elsewhere(here)
    words = ("node", "serve", "folder", docs(here), "--name", "docs")
    assert here.run(*words, environment=there).code == 8
    here.environment |= there | {"ANTIPHON_TOKEN": token}
    process = here.serve(*words[2:])
    home = {"ANTIPHON_DATA": str(here.data), "ANTIPHON_TOKEN": "", "ANTIPHON_NATS": ""}
    assert here.run("search", "whales", "-o", "json", environment=home).json["hits"]
    [instance] = here.run("node", "show", "docs", "-o", "json", environment=home).json["instances"]
    assert here.run(*words, environment=elsewhere(here, "c", ANTIPHON_TOKEN=token)).code == 8, "it was for one instance"
    process.send_signal(signal.SIGKILL)
    process.wait()
    here.environment["ANTIPHON_TOKEN"] = ""
    here.serve(*words[2:])
    assert here.run("search", "whales", "-o", "json", environment=home).json["hits"]
    shown = here.run("identity", "show", "docs", "-o", "json", environment=home).json
    assert [one["instance"] for one in shown["families"]] == [instance["instance"]]
    assert shown["invites"][0]["instances_left"] == 0


def test_a_node_logs_in_first_and_serves_later(here: Fabric) -> None:
    here.up()
    token = here.run("node", "invite", "docs").out.strip()
    there = elsewhere(here)
    wrong = here.run("login", "--name", "docs", stdin=token, environment=there)
    assert wrong.code == 2
    assert "--kind node" in wrong.err
    done = here.run("login", "--name", "docs", "--kind", "node", stdin=token, environment=there)
    assert done.code == 0
    assert "--name docs" in done.err
    home = {"ANTIPHON_DATA": str(here.data), "ANTIPHON_NATS": ""}
    here.environment |= there
    here.serve("folder", docs(here), "--name", "docs")
    assert here.run("search", "whales", "-o", "json", environment=home).json["hits"]


# -- kill -9, and what is lost


def test_after_kill_9_of_everything_the_same_credentials_go_on(here: Fabric) -> None:
    process = here.up()
    here.serve("folder", docs(here), "--name", "docs")
    key, there = key_of(here, "web"), elsewhere(here)
    assert here.run("login", "--name", "web", stdin=key, environment=there).code == 0
    before = (here.data / "operator.json").read_bytes()
    note = json.loads((here.data / "antiphon.json").read_text())
    os.kill(process.pid, signal.SIGKILL)
    os.kill(note["server_pid"], signal.SIGKILL)
    process.wait()
    here.up()
    assert here.url() == note["url"], "the same port: who was connected comes back"
    assert (here.data / "operator.json").read_bytes() == before
    assert here.run("identity", "ls").code == 0
    until(lambda: '"hits":[{' in here.run("search", "whales", "-o", "json", environment=there).out.replace(" ", ""))


def test_a_lost_bucket_heals_for_whoever_is_on_this_machine(here: Fabric) -> None:
    process = here.up()
    node = here.serve("folder", docs(here), "--name", "docs")
    key, there = key_of(here, "web"), elsewhere(here)
    assert here.run("login", "--name", "web", stdin=key, environment=there).code == 0
    process.terminate()
    process.wait()
    shutil.rmtree(here.data / "jetstream")
    here.up()
    assert here.run("identity", "ls").code == 0
    until(lambda: here.run("search", "whales", "-o", "json").json["hits"] != [])
    assert node.poll() is None
    assert here.run("search", "whales", environment=there).code == 8, "others need a new key"


# -- production


def production(here: Fabric, keys: Path) -> dict[str, Any]:
    """A nats-server of one's own with the printed configuration, and its process."""
    done = here.run("nats-config", "--keys", str(keys))
    assert done.code == 0, done.err
    folder = here.data.parent / "server"
    folder.mkdir()
    text = f'listen: "127.0.0.1:-1"\njetstream {{ store_dir: "{folder}/js" }}\n{done.out}'
    (folder / "nats.conf").write_text(text)
    assert subprocess.run([str(find_binary()), "-t", "-c", str(folder / "nats.conf")], check=False).returncode == 0
    process = here.start("-c", str(folder / "nats.conf"), "--ports_file_dir", str(folder), command=[str(find_binary())])
    until(lambda: bool(list(folder.glob("*.ports"))))
    ports = next(iter(folder.glob("*.ports")))
    until(lambda: ports.read_text().endswith("}"))
    return {"url": json.loads(ports.read_text())["nats"][0], "process": process, "out": done}


def test_a_production_server_with_two_masters(here: Fabric) -> None:
    keys = here.data.parent / "secrets" / "keys"
    made = production(here, keys)
    assert "made the fabric's keys" in made["out"].err
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert here.run("nats-config", "--keys", str(keys)).out == made["out"].out, "made once"
    at = ("--nats", made["url"])
    without = here.start("run", "master", "--open", *at)
    until(lambda: without.poll() is not None)
    assert without.returncode == 8
    masters = []
    for name in ("master-one", "master-two"):
        masters.append(here.start("run", "master", "--keys", str(keys), "--name", name, *at))
        until(lambda: '"master.serves"' in here.log(masters[-1]) or masters[-1].poll() is not None)
        assert masters[-1].poll() is None, here.log(masters[-1])
    operator = ("--credentials", str(keys.parent / "operator.json"), *at)
    assert here.run("identity", "ls", *operator).code == 0
    assert here.run("identity", "ls", *at).code == 8
    done = here.run("doctor", "-o", "json", *operator)
    assert findings(done)["mode"]["status"] == "ok"
    assert here.run("identity", "create", "web", *operator).code == 0
    key = here.run("key", "create", "web", *operator).out.strip()
    masters[0].send_signal(signal.SIGKILL)
    masters[0].wait()
    there = {"ANTIPHON_DATA": str(here.data.parent / "b"), "ANTIPHON_NATS": made["url"]}
    until(lambda: here.run("login", "--name", "web", stdin=key, environment=there).code == 0)
    assert here.run("whoami", "-o", "json", environment=there).json["master"] == "master-two"
    (keys / "issuer.seed").chmod(0o644)
    refused = here.run("run", "master", "--keys", str(keys), *at)
    assert refused.code == 1
    assert "chmod 600" in refused.err


def test_a_server_that_asks_nobody_is_open_and_doctor_says_so(here: Fabric) -> None:
    url = here.open_server()
    master = here.start("run", "master", "--open", "--nats", url)
    until(lambda: '"master.serves"' in here.log(master))
    done = here.run("doctor", "-o", "json", "--nats", url)
    assert done.code == 0
    found = findings(done)
    assert found["mode"]["says"].startswith("open")
    assert {one: found[one]["status"] for one in ("mode", "permissions", "credential")} == dict.fromkeys(
        ("mode", "permissions", "credential"), "warning"
    )
    assert "nats-config" in found["mode"]["advice"]


def test_a_key_that_is_bound_to_an_nkey_and_words_for_what_is_over(here: Fabric, tmp_path: Path) -> None:
    pair, seed = KeyPair.make(Role.USER), tmp_path / "web.seed"
    here.up()
    create_private(seed, pair.seed() + "\n")
    assert here.run("identity", "create", "web").code == 0
    key = here.run("key", "create", "web", "--nkey", pair.public).out.strip()
    there = elsewhere(here, "c")
    refused = here.run("login", "--name", "web", stdin=key, environment=there)
    assert refused.code == 8, "another nkey"
    done = here.run("login", "--name", "web", "--seed", str(seed), stdin=key, environment=there)
    assert done.code == 0, done.err
    assert here.run("whoami", "-o", "json", environment=there).json["name"] == "web"
    assert here.run("login", "--name", "web", "--seed", str(Path(__file__)), stdin=key, environment=there).code != 0

    token = here.run("node", "invite", "shop").out.strip()
    node = elsewhere(here, "d")
    assert here.run("login", "--name", "shop", "--kind", "node", stdin=key, environment=node).code == 2
    assert here.run("login", "--name", "shop", "--kind", "node", stdin=token, environment=node).code == 0
    assert "used up" in here.run("identity", "show", "shop").out
    me = here.run("whoami", "-o", "json").json["name"]
    suspended = here.run("identity", "suspend", me)
    assert suspended.code == 0
    assert "is you" in suspended.err
