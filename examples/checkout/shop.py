"""The three systems of a checkout, each a node: `python examples/checkout/shop.py users`, `payments` and `mail`.

`checkout.toml` beside it is the saga over them. Payments keeps its ledger in SQLite, with at most one charge and one
refund of each saga: however often it is asked, the card is charged once, what was not charged is not paid back, and a
charge that comes after its refund is none.
"""

import os
import sqlite3
import sys

from pydantic import BaseModel

from antiphon import ActionContext, Node
from antiphon.errors import Declined

EMAILS = {"ann": "ann@example.org", "bob": "nowhere@example.org"}


class User(BaseModel):
    user: str


class Charge(BaseModel):
    user: str
    cents: int


class Receipt(BaseModel):
    email: str
    charge: str


users = Node("users", description="who has an account here")


@users.action("verify_user", params=User, effect="read", idempotent=True)
def verify_user(params: User) -> dict[str, str]:
    if params.user not in EMAILS:
        raise Declined(f"nobody here is called {params.user}")
    return {"email": EMAILS[params.user]}


payments = Node("payments", description="charges cards")


TABLE = "CREATE TABLE IF NOT EXISTS entries (saga, kind, user, cents INTEGER, PRIMARY KEY (saga, kind))"
CHARGE = """
INSERT OR IGNORE INTO entries SELECT :saga, 'charge', :user, :cents
WHERE NOT EXISTS (SELECT 1 FROM entries WHERE saga = :saga AND kind = 'refund')
"""
REFUND = """
INSERT OR IGNORE INTO entries SELECT :saga, 'refund', :user,
-IFNULL((SELECT cents FROM entries WHERE saga = :saga AND kind = 'charge'), 0)
"""


def enter(entry: str, charge: Charge, saga: str) -> None:
    with sqlite3.connect(os.environ.get("LEDGER", "ledger.db")) as ledger:
        ledger.execute(TABLE)
        ledger.execute(entry, {"saga": saga, "user": charge.user, "cents": charge.cents})


@payments.action("charge_card", params=Charge)
def charge_card(params: Charge, context: ActionContext) -> dict[str, str]:
    enter(CHARGE, params, context.job)
    return {"charge": context.key}


@payments.action("refund_card", params=Charge, compensates="charge_card")
def refund_card(params: Charge, context: ActionContext) -> None:
    """Pay back what was charged; it is given what the charge was given."""
    enter(REFUND, params, context.job)


mail = Node("mail", description="sends receipts")


@mail.action("send_receipt", params=Receipt)
def send_receipt(params: Receipt) -> None:
    if params.email.startswith("nowhere"):
        raise Declined(f"the mail server knows no {params.email}")
    print(f"to {params.email}: your card was charged, see {params.charge}", flush=True)


if __name__ == "__main__":
    {"users": users, "payments": payments, "mail": mail}[sys.argv[1]].run()
