"""examples/checkout: three node processes, a master and a server; a receipt that cannot be sent refunds the card."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import Fabric, fabric

CHECKOUT = Path(__file__).parents[2] / "examples/checkout"
FILE = str(CHECKOUT / "checkout.toml")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    folder = tmp_path_factory.mktemp("checkout")
    with fabric(folder) as made:
        made.environment["LEDGER"] = str(folder / "ledger.db")
        made.up()
        for name in NODES:
            made.program(CHECKOUT / "checkout_nodes.py", name)
        yield made


NODES = ("users", "payments", "mail")


def entries(here: Fabric, saga: str) -> list[int]:
    with sqlite3.connect(here.environment["LEDGER"]) as ledger:
        found = ledger.execute("SELECT cents FROM entries WHERE saga = ? ORDER BY rowid", (saga,))
        return [cents for (cents,) in found]


def test_a_checkout_charges_once_however_often_it_is_submitted(here: Fabric) -> None:
    words = ("saga", "submit", FILE, "--input", "user=ann", "--input", "cents=4200", "--id", "order-1")
    for _ in range(2):
        done = here.run(*words, "-o", "json")
        assert (done.code, done.json["state"]) == (0, "completed"), done.err
        assert done.json["results"]["charge_card"] == {"charge": "order-1/2f"}
    assert entries(here, "order-1") == [4200]
    mail = Path(here.data.parent / f"{NODES.index('mail') + 1}.out").read_text(encoding="utf-8")
    assert mail.count("to ann@example.org: your card was charged, see order-1/2f") == 1


def test_a_receipt_that_cannot_be_sent_refunds_the_card(here: Fabric) -> None:
    done = here.run("saga", "submit", FILE, "--input", "user=bob", "--input", "cents=700", "--id", "order-2")
    assert done.code == 9, done.err
    assert "cause\tsend_receipt failed: declined: the mail server knows no nowhere@example.org" in done.out
    assert entries(here, "order-2") == [700, -700]


def test_a_user_who_is_not_there_pays_nothing(here: Fabric) -> None:
    done = here.run("saga", "submit", FILE, "--input", "user=eve", "--input", "cents=1", "--id", "order-3")
    assert done.code == 9, done.err
    assert entries(here, "order-3") == []
