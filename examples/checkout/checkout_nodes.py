"""The three systems of a checkout, each a node: `python checkout_nodes.py users`, `payments` and `mail`.

`checkout.toml` beside it is the saga over them. Payments keeps its ledger in SQLite behind an inbox: however often it
is asked, the card is charged once, what was not charged is not paid back, and a charge after its refund is none.
"""

import os
import sqlite3
import sys
from contextlib import closing

from pydantic import BaseModel

from antiphon import ActionContext, Inbox, Node
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
inbox = Inbox(sqlite3)


def enter(context: ActionContext, user: str, cents: int) -> None:
    """Write an entry of the ledger: once for each step that is done or undone."""
    with closing(sqlite3.connect(os.environ.get("LEDGER", "ledger.db"))) as ledger:
        inbox.create(ledger)
        ledger.execute("CREATE TABLE IF NOT EXISTS entries (saga, user, cents INTEGER)")

        def effect(cursor: sqlite3.Cursor) -> None:
            cursor.execute("INSERT INTO entries VALUES (?, ?, ?)", (context.job, user, cents))

        inbox.once(ledger, context, effect)


@payments.action("charge_card", params=Charge)
def charge_card(params: Charge, context: ActionContext) -> dict[str, str]:
    enter(context, params.user, params.cents)
    return {"charge": context.key}


@payments.action("refund_card", params=Charge, compensates="charge_card")
def refund_card(params: Charge, context: ActionContext) -> None:
    """Pay back what was charged; it is given what the charge was given."""
    enter(context, params.user, -params.cents)


mail = Node("mail", description="sends receipts")


@mail.action("send_receipt", params=Receipt)
def send_receipt(params: Receipt) -> None:
    if params.email.startswith("nowhere"):
        raise Declined(f"the mail server knows no {params.email}")
    print(f"to {params.email}: your card was charged, see {params.charge}", flush=True)


if __name__ == "__main__":
    {"users": users, "payments": payments, "mail": mail}[sys.argv[1]].run()
