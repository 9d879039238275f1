"""`antiphon nats-config`: what a nats-server's configuration has to say, for a server that Antiphon does not start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

command = App(name="nats-config", help="Print what a production nats-server's configuration has to say.")


@command.default
def nats_config(
    *,
    keys: Annotated[Path | None, Parameter(env_var="ANTIPHON_KEYS")] = None,
    data: Path | None = None,
) -> int:
    """Print what a production nats-server's configuration has to say. It has no secrets, only public keys.

    Args:
        keys: the fabric's keys folder, made now if there is none; default: $ANTIPHON_KEYS, or `keys` in the data
            directory.
        data: the data directory; default: $ANTIPHON_DATA, or the user's own.
    """
    from antiphon.bus.home import default_data_dir  # noqa: PLC0415 - not for --help
    from antiphon.cli import say  # noqa: PLC0415 - it imports this
    from antiphon.identity.server_config import production  # noqa: PLC0415 - not for --help
    from antiphon.identity.vault import FOLDER, Vault  # noqa: PLC0415 - as above

    folder = keys or (data or default_data_dir()) / FOLDER
    is_new = not folder.is_dir()
    vault = Vault.at(folder)
    if is_new:
        say(f"made the fabric's keys in {folder}: whoever has them is the fabric; keep a copy where nobody else reads")
    print(production(vault.public), end="")
    say(f"then run masters beside it: antiphon run master --nats URL --keys {folder}")
    return 0
