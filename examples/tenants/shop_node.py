"""The shop of one tenant: `python shop_node.py acme`. All tenants run the same program, each on data of its own."""

import sys

from pydantic import BaseModel, Field

from antiphon import ActionContext, Node
from antiphon.errors import Declined, NotAllowed

tenant = sys.argv[1]
node = Node(f"{tenant}-shop", description=f"the shop of {tenant}", metadata={"tenant": tenant})
ORDERS = {"o-1": 4_200, "o-2": 990}
refunded: dict[str, str] = {}


class Refund(BaseModel):
    order: str
    cents: int = Field(ge=1)


class Refunded(BaseModel):
    order: str
    cents: int
    by: str


@node.action("refund", params=Refund, result=Refunded, effect="destructive", dry_run=True, aggregates={"cents": "sum"})
async def refund(params: Refund, context: ActionContext) -> Refunded:
    """Give a customer his money back."""
    if tenant not in context.groups:  # masters have asked the policy already; this shop asks once more
        raise NotAllowed(f"{context.caller} is not of {tenant}")
    if ORDERS.get(params.order, 0) < params.cents:
        raise Declined(f"no order {params.order} of {params.cents} cents")
    if not context.dry_run:
        refunded[params.order] = context.key
    return Refunded(order=params.order, cents=params.cents, by=context.caller or "")


if __name__ == "__main__":
    node.run()
