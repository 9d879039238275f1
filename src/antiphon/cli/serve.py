"""`antiphon node serve KIND ...`: a command a connector, made from the connector's own fields and docstring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Annotated

from cyclopts import App, Group, Parameter

from antiphon import logs  # pyright: ignore[reportUnusedImport]  # noqa: F401 - first: structlog without rich
from antiphon.cli.options import Connection, listed
from antiphon.cli.serving import Card, serve
from antiphon.connectors import Connector, catalogue
from antiphon.errors import InvalidSetting

CONTENT = Group("Content", sort_key=10)
CARD = Group("Node", sort_key=20)


@Parameter(name="*", group=CARD)
@dataclass(frozen=True, kw_only=True)
class Naming:
    """What the node says of itself.

    Attributes:
        name: the node's name, the same for all its instances; default: after its content.
        instance: this instance's name; drawn if it is not given.
        description: one or two sentences for people; default: the connector's.
        topics: what it is about, separated by commas; default: the connector's.
    """

    name: str | None = None
    instance: str | None = None
    description: str | None = None
    topics: tuple[str, ...] = ()


def _command(kind: type[Connector]) -> Callable[..., None]:
    def serve_content(content: Connector, *, naming: Naming = Naming(), at: Connection = Connection()) -> None:  # noqa: B008 - frozen
        at.configure_logs("info", role=f"node-{naming.name or content.kind}")
        for option, value in ((field.name, getattr(content, field.name)) for field in fields(content)):
            if isinstance(value, int) and value < 1:
                raise InvalidSetting(f"--{option.replace('_', '-')} is {value}: it must be at least 1")
        card = Card(naming.name, naming.instance, naming.description, listed(naming.topics))
        serve(content, card, **at.place())

    # cyclopts reads the connector's fields as options, once it knows the very class
    serve_content.__annotations__["content"] = Annotated[kind, Parameter(name="*", group=CONTENT)]
    if all(field.default is not MISSING for field in fields(kind)):
        serve_content.__defaults__ = (kind(),)
    serve_content.__doc__ = (kind.__doc__ or "").split("Attributes:")[0].strip()
    return serve_content


command = App(
    name="serve", help="Make content a node with no code; it is indexed, served, and indexed again on change."
)
for _name, _kind in catalogue().items():
    command.command(_command(_kind), name=_name)
