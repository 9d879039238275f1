"""The examples of actions, run as their section in docs/actions.md says: real programs on a real `antiphon up`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import BOUND_S, Done, Fabric, fabric, until

EXAMPLES = Path(__file__).parents[2] / "examples"
SYSTEMS = ("shop", "blog", "crm")
TENANTS = ("acme", "globex")
REFUND = ("action", "run", "refund", "--param", "order=o-1", "--param", "cents=4200")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    with fabric(tmp_path_factory.mktemp("examples")) as made:
        made.up()
        for name in SYSTEMS:
            made.start(str(EXAMPLES / f"sync/{name}.py"), command=(sys.executable,))
        for name in TENANTS:
            made.start(str(EXAMPLES / "tenants/shop_node.py"), name, command=(sys.executable,))
        joined = {*SYSTEMS, *(f"{name}-shop" for name in TENANTS)}
        until(
            lambda: (
                {line.split("\t")[0] for line in made.run("node", "ls", "--status", "active").out.splitlines()}
                == joined
            )
        )
        yield made


def test_a_program_without_a_server_ends_with_a_line(tmp_path: Path) -> None:
    with fabric(tmp_path) as nowhere:
        program = [sys.executable, str(EXAMPLES / "blog_node.py")]
        done = subprocess.run(
            program, env=nowhere.environment, capture_output=True, text=True, check=False, timeout=BOUND_S
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("blog: not_connected: no NATS server is known: start one with `antiphon up`")
    assert "Traceback" not in done.stderr


def everywhere(here: Fabric, since: str) -> Done:
    program = [sys.executable, str(EXAMPLES / "sync/everywhere.py"), since]
    done = subprocess.run(program, env=here.environment, capture_output=True, text=True, check=False, timeout=BOUND_S)
    return Done(done.returncode, done.stdout, done.stderr)


def test_sync_runs_on_shop_blog_and_crm_and_sums_up_what_has_changed(here: Fabric) -> None:
    done = everywhere(here, "2026-11-15")
    assert done.code == 0, done.err
    assert "  shop: succeeded\n" in done.out
    assert done.out.endswith(
        "blog: {'records': 1, 'state': 'changed'}\n"
        "crm: {'records': 7, 'state': 'changed'}\n"
        "shop: {'records': 6, 'state': 'changed'}\n"
        "sum of records: 14\n"
        "histogram of state: {'changed': 3}\n"
        "complete\n"
    )


def test_a_system_that_cannot_sync_is_named_with_its_reason_and_the_others_are_synced(here: Fabric) -> None:
    done = everywhere(here, "2026-01-15")
    assert done.code == 1
    assert "  shop: running order" in done.out, "it says how far it is while it runs"
    assert "crm: declined: changes are kept since 2026-06-01\n" in done.out
    assert done.out.endswith("sum of records: 23\nhistogram of state: {'changed': 2}\nnot done on crm\n")


def test_a_tenant_runs_actions_on_its_own_nodes_and_on_no_others(here: Fabric) -> None:
    assert here.run("node", "apply", str(EXAMPLES / "tenants/policy.toml")).code == 0
    its: dict[str, dict[str, str]] = {}
    for name in TENANTS:
        assert here.run("identity", "create", f"{name}-web", "--groups", name).code == 0
        key = here.run("key", "create", f"{name}-web").out.strip()
        its[name] = {"ANTIPHON_NAME": f"{name}-web", "ANTIPHON_TOKEN": key}
    listed = here.run("action", "ls", environment=its["acme"]).out
    assert listed == "refund\tdestructive\tacme-shop\tGive a customer his money back.\n", "nothing else is there for it"
    done = here.run(*REFUND, "--all", "--yes", environment=its["acme"])
    assert done.code == 0, done.err
    [(node, state, _took, result)] = [line.split("\t") for line in done.out.splitlines()]
    assert (node, state) == ("acme-shop", "succeeded")
    assert result == '{"order": "o-1", "cents": 4200, "by": "acme-web"}'
    tried = here.run(*REFUND, "--all", "--dry-run", environment=its["globex"])
    assert tried.out.startswith("globex-shop\tsucceeded")
    refused = here.run(*REFUND, "--node", "acme-shop", "--yes", environment=its["globex"])
    assert (refused.code, refused.out) == (2, "")
    assert "no node 'acme-shop'" in refused.err
