"""docker-compose.yml without Docker: legal by its schema, its commands are the CLI's, its NATS starts."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import nats
import pytest
import yaml
from jsonschema import Draft202012Validator

from antiphon.bus.server import find_binary
from antiphon.bus.version import VERSION_MIN

ROOT = Path(__file__).parents[2]
SPEC = Path(__file__).parent / "compose-spec"
START_S = 15


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return loaded


def ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services that run this repository's own image."""
    return {name: service for name, service in compose["services"].items() if "build" in service}


def test_the_file_is_legal_by_the_compose_specification(compose: dict[str, Any]) -> None:
    raw = (SPEC / "compose-spec.json").read_bytes()
    assert hashlib.sha256(raw).hexdigest() in (SPEC / "README.md").read_text(encoding="utf-8"), "vendored unchanged"
    validator = Draft202012Validator(json.loads(raw))
    validator.validate(compose)
    assert not validator.is_valid({"services": {"x": {"imago": "nats"}}}), "the schema does refuse"


def test_one_server_one_master_two_nodes(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["nats"]["image"] == "nats:2.15-alpine"
    assert tuple(map(int, services["nats"]["image"].split(":")[1].split("-")[0].split("."))) >= VERSION_MIN[:2]
    assert [name for name, one in services.items() if one.get("command", [])[:2] == ["run", "master"]] == ["master"]
    nodes = [service for service in services.values() if service.get("command", [])[:2] == ["node", "serve"]]
    assert len(nodes) == 2
    for service in ours(compose).values():
        assert service["environment"]["ANTIPHON_NATS"] == "nats://nats:4222"
        assert service["depends_on"] == {"nats": {"condition": "service_healthy"}}
    assert all(port.startswith("127.0.0.1:") for port in services["nats"]["ports"])


def test_what_it_mounts_and_copies_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).exists(), source
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
        assert f"!{name}\n" in allowed, f"{name} must not be ignored"


def test_its_commands_are_the_command_lines_own(compose: dict[str, Any]) -> None:
    app = importlib.import_module("antiphon.cli").app()
    for name, service in ours(compose).items():
        words = [*service.get("entrypoint", ["antiphon"])[1:], *service["command"]]
        command, bound, unused, *_ = app.parse_known_args(words)
        assert not unused, f"{name}: {unused}"
        assert callable(command)
        assert bound is not None


async def test_its_nats_starts_natively(compose: dict[str, Any], tmp_path: Path) -> None:
    service = compose["services"]["nats"]
    words = [str(tmp_path / "data") if word == "/data" else word for word in service["command"]]
    mounts = dict(volume.split(":")[:2] for volume in service["volumes"])
    inside = {there: str(ROOT / here) for here, there in mounts.items() if here.startswith(".")}
    # Free ports on loopback instead of the container's own: the rest is as in the file.
    own = ["-a", "127.0.0.1", "-p", "-1", "-m", "-1", "--ports_file_dir", str(tmp_path)]
    command = [str(find_binary()), *(inside.get(word, word) for word in words), *own]
    server = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    try:
        ports = await ports_of(tmp_path)
        client = await nats.connect(ports["nats"][0])
        assert client.max_payload == 1_048_576
        await client.jetstream().add_stream(name="x", subjects=["x"])
        await client.close()
        assert (tmp_path / "data" / "jetstream").is_dir()
        check = service["healthcheck"]["test"][-1]
        url = check.replace("http://127.0.0.1:8222", ports["monitoring"][0])
        assert url != check
        assert await asyncio.to_thread(status, url) == 200
    finally:
        server.terminate()
        await server.communicate()
    assert server.returncode == 0


async def ports_of(folder: Path) -> dict[str, list[str]]:
    async with asyncio.timeout(START_S):
        while not (found := written(folder)):  # noqa: ASYNC110 - another process writes it and sends no event
            await asyncio.sleep(0.005)
    return found


def written(folder: Path) -> dict[str, list[str]]:
    for path in folder.glob("*.ports"):
        try:
            return dict(json.loads(path.read_bytes()))
        except json.JSONDecodeError:  # it is still being written
            return {}
    return {}


def status(url: str) -> int:
    with urllib.request.urlopen(url, timeout=START_S) as answer:
        return int(answer.status)
