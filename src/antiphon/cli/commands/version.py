"""`antiphon version`: what is installed, for a bug report."""

from __future__ import annotations

from cyclopts import App

command = App(name="version", help="Show the versions of Antiphon, its server and Python.")


@command.default
def version() -> None:
    """Show the versions of Antiphon, its server and Python."""
    import platform  # noqa: PLC0415 - not for --help
    from importlib.metadata import version as installed  # noqa: PLC0415 - as above

    from antiphon.bus.server import find_binary  # noqa: PLC0415 - as above
    from antiphon.bus.server import version as server_version  # noqa: PLC0415 - as above
    from antiphon.errors import SetupError  # noqa: PLC0415 - as above

    try:
        binary = find_binary()
        server = f"{server_version(binary)} ({binary})"
    except SetupError as error:
        server = error.text
    print(f"antiphon     {installed('antiphon')}")
    print(f"nats-server  {server}")
    print(f"nats-py      {installed('nats-py')}")
    print(f"python       {platform.python_version()} ({platform.system().lower()} {platform.machine()})")
