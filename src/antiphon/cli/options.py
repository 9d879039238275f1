"""Options that commands share: where the server is, how much is logged, what is written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from antiphon.bus.endpoint import Endpoint
    from antiphon.kept_logs import LogFile

CONNECTION = Group("Connection", sort_key=90)
LogLevel = Literal["debug", "info", "warning", "error"]


@Parameter(name="*", group=CONNECTION)
@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where the server is, and who asks.

    Attributes:
        nats: the NATS server, e.g. nats://host:4222; several of a cluster are separated by commas.
        context: a NATS context by name, as the nats command line stores them.
        data: the data directory of an embedded server; default: $ANTIPHON_DATA, or the user's own.
        credentials: a credential file; default: $ANTIPHON_CREDENTIALS, $ANTIPHON_TOKEN, or what this machine has.
        log_level: what is logged to stderr: debug, info, warning or error.
    """

    nats: str | None = None
    context: str | None = None
    data: Path | None = None
    credentials: Path | None = None
    log_level: Annotated[LogLevel | None, Parameter(env_var="ANTIPHON_LOG")] = None

    def configure_logs(self, default: str = "warning", *, role: str | None = None) -> None:
        """Send the logs to stderr, at the level that was asked for; those of a role are kept, too (`antiphon logs`)."""
        from antiphon import logs  # noqa: PLC0415 - not for --help

        logs.configure(self.log_level, default=default, keep=None if role is None else self._kept(role))

    def _kept(self, role: str) -> LogFile | None:
        from antiphon.bus.home import prepare  # noqa: PLC0415 - not for --help
        from antiphon.errors import InvalidSetting  # noqa: PLC0415 - as above
        from antiphon.kept_logs import FOLDER, LogFile  # noqa: PLC0415 - as above

        try:
            return LogFile(prepare(self.home()) / FOLDER, role)
        except InvalidSetting:
            return None  # whoever needs the directory says so; a node on a machine without one logs to stderr alone

    def place(self) -> dict[str, Any]:
        """Return where, and with which credential, as everything that connects takes it."""
        return {**self.where(), "credentials": self.credentials}

    def where(self) -> dict[str, Any]:
        """Return `nats`, `context` and `data`.

        Where nothing is given and only a demo runs on this machine, the demo's server is meant: what it prints to be
        typed into another terminal just works.
        """
        return {"nats": self.nats, "context": self.context, "data": self.data or self._demo()}

    def endpoint(self) -> Endpoint:
        """Return the server that is meant; raises what `resolve` does."""
        from antiphon.bus.endpoint import resolve  # noqa: PLC0415 - not for --help

        where = self.where()
        return resolve(where["nats"], context=where["context"], data=where["data"])

    def home(self) -> Path:
        """Return the data directory that is meant."""
        from antiphon.bus.home import default_data_dir  # noqa: PLC0415 - not for --help

        found: Path | None = self.where()["data"]
        return found or default_data_dir()

    def _demo(self) -> Path | None:
        from antiphon.bus.endpoint import URL_VARIABLE  # noqa: PLC0415 - not for --help
        from antiphon.bus.home import default_data_dir, running  # noqa: PLC0415 - as above

        if self.nats or self.context or os.environ.get(URL_VARIABLE):
            return None
        home = default_data_dir()
        demo = demo_data_dir()
        return demo if running(home) is None and running(demo) is not None else None


def demo_data_dir() -> Path:
    """Return where a demo keeps its server, apart from the user's own."""
    from antiphon.bus.home import default_data_dir  # noqa: PLC0415 - not for --help

    return default_data_dir() / "demo"


def listed(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return values that were repeated or separated by commas, one by one."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())
