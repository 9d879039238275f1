"""Where to connect: an explicit URL, a NATS context, the environment, the server on this machine, or a clear error.

Credentials never stay in a URL, so URLs may stand in logs and errors; the rest is hidden from `repr`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from antiphon.bus.home import DATA_VARIABLE, default_data_dir, running
from antiphon.errors import InvalidSetting, NotConnected

URL_VARIABLE: Final = "ANTIPHON_NATS"
CA_VARIABLE: Final = "ANTIPHON_TLS_CA"
CERTIFICATE_VARIABLE: Final = "ANTIPHON_TLS_CERT"
KEY_VARIABLE: Final = "ANTIPHON_TLS_KEY"
SCHEMES: Final = ("nats", "tls", "ws", "wss")
CONTEXT_BYTES_MAX: Final = 65_536
_CONTEXT_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A NATS server, or several of one cluster, and what to show at its door.

    Attributes:
        url: `nats://host:port`, several separated by commas; never with credentials in it.
        user: the user's name.
        password: the user's password.
        token: an authentication token.
        credentials: a `.creds` file.
        nkey_seed_file: a file with an nkey's seed.
        ca: a file with the certificates of whoever may vouch for the server; default: the system's.
        certificate: a file with this process's own certificate, where the server asks for one.
        key: a file with its key; default: it is in the same file.
        source: where this was found, for people.
    """

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials: Path | None = None
    nkey_seed_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    source: str = "given"

    @property
    def urls(self) -> list[str]:
        """The URLs one by one."""
        return self.url.split(",")

    @property
    def is_tls(self) -> bool:
        """Whether a URL asks for an encrypted connection."""
        return any(one.startswith(("tls://", "wss://")) for one in self.urls)

    @property
    def needs_tls(self) -> bool:
        """Whether nothing may be said in the clear.

        Who names an authority or shows a certificate wants that, too; but those may stand in the environment for all
        servers, and the one on this machine does not encrypt unless its URL says so.
        """
        return self.is_tls or ((self.ca is not None or self.certificate is not None) and not self._is_here)

    @property
    def _is_here(self) -> bool:
        hosts = [urlsplit(one).hostname or "" for one in self.urls]
        return all(host in ("localhost", "::1") or host.startswith("127.") for host in hosts)


def resolve(
    url: str | None = None,
    *,
    context: str | None = None,
    data: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Endpoint:
    """Return where to connect: the first that is there.

    1. `url`; 2. the NATS context named `context`; 3. the embedded server that serves `data`; 4. `$ANTIPHON_NATS`;
    5. the one that serves `$ANTIPHON_DATA` or the user's own directory; 6. what `nats context select` chose.

    Raises `InvalidSetting` for one that is there and broken, `NotConnected` when there is none.
    """
    return with_tls(_resolve(url, context, data, environment), environment)


def with_tls(endpoint: Endpoint, environment: Mapping[str, str] = os.environ) -> Endpoint:
    """Return the endpoint with the files that the environment names, where it names none itself."""
    source = endpoint.source
    return replace(
        endpoint,
        ca=endpoint.ca or _existing(environment.get(CA_VARIABLE, ""), f"${CA_VARIABLE}", source),
        certificate=endpoint.certificate
        or _existing(environment.get(CERTIFICATE_VARIABLE, ""), f"${CERTIFICATE_VARIABLE}", source),
        key=endpoint.key or _existing(environment.get(KEY_VARIABLE, ""), f"${KEY_VARIABLE}", source),
    )


def _resolve(url: str | None, context: str | None, data: Path | None, environment: Mapping[str, str]) -> Endpoint:
    if url is not None:
        return parse(url, source="the given URL")
    if context is not None:
        return read_context(context, environment)
    if data is not None and (server := running(data)) is not None:
        return Endpoint(server.url, source=f"the server of {data}")
    if given := environment.get(URL_VARIABLE):
        return parse(given, source=f"${URL_VARIABLE}")
    folder = data or _data(environment)
    if (server := running(folder)) is not None:
        return Endpoint(server.url, source=f"the server of {folder}")
    if (chosen := _selected(environment)) is not None:
        return read_context(chosen, environment)
    raise NotConnected(
        f"no NATS server is known: start one with `antiphon up`, or give --nats URL, --context NAME or ${URL_VARIABLE}"
    )


def parse(url: str, *, source: str = "given") -> Endpoint:
    """Return the endpoint of a URL such as `host`, `host:4222`, `nats://user:password@host`, `tls://a,tls://b`.

    Raises `InvalidSetting`; its text never repeats credentials.
    """
    parts = [_split(one.strip(), source) for one in url.split(",")]
    doors = {(part.username, part.password) for part in parts}
    if len(doors) > 1:
        raise InvalidSetting(f"{source}: all servers of one list take the same credentials")
    name, password = (unquote(text) if text else None for text in doors.pop())
    places = ",".join(f"{part.scheme}://{part.netloc.rpartition('@')[2]}{part.path.rstrip('/')}" for part in parts)
    # As everywhere in NATS, a name without a password is a token.
    if name and password is None:
        return Endpoint(places, token=name, source=source)
    return Endpoint(places, user=name, password=password, source=source)


def read_context(name: str, environment: Mapping[str, str] = os.environ) -> Endpoint:
    """Return the endpoint of a context as the nats CLI stores it (NATS ADR-21).

    Raises `InvalidSetting` when there is no such context, or it is broken, or it rests on something that is not
    supported here. Other fields that are not known are ignored.
    """
    source = f"the NATS context {name!r}"
    if _CONTEXT_NAME.fullmatch(name) is None:
        raise InvalidSetting(f"{name[:80]!r} is not the name of a NATS context")
    path = _contexts(environment) / "context" / f"{name}.json"
    try:
        with path.open("rb") as file:
            context = _Context.model_validate_json(file.read(CONTEXT_BYTES_MAX))
    except FileNotFoundError:
        raise InvalidSetting(f"there is no NATS context {name!r}: {path} is missing") from None
    except OSError as error:
        raise InvalidSetting(f"{source} cannot be read: {error}") from error
    except ValidationError as error:
        # from None: pydantic's own text repeats the input, which may be a password
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}" for one in error.errors())
        raise InvalidSetting(f"{source} is broken: {wrong}") from None
    return context.endpoint(source)


Setting = Annotated[str, StringConstraints(max_length=8_192)]


class _Context(BaseModel):
    """What we read of a context file; the nats CLI writes every field, with an empty string for none."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    url: Setting = ""
    user: Setting = ""
    password: Setting = ""
    token: Setting = ""
    creds: Setting = ""
    nkey: Setting = ""
    # A context that needs one of these would be refused by its server with words that do not say why.
    user_jwt: Setting = ""
    user_seed: Setting = ""
    nsc: Setting = ""
    socks_proxy: Setting = ""
    cert: Setting = ""
    key: Setting = ""
    ca: Setting = ""

    def endpoint(self, source: str) -> Endpoint:
        unknown = ("user_jwt", "user_seed", "nsc", "socks_proxy")
        used = [name for name in unknown if getattr(self, name)]
        if used:
            raise InvalidSetting(f"{source} uses {', '.join(used)}, which Antiphon does not support")
        if not self.url:
            raise InvalidSetting(f"{source} has no url")
        # The nats CLI has always called a user without a password a token.
        bare = bool(self.user and not self.password)
        at = parse(self.url, source=source)
        return Endpoint(
            at.url,
            user=(None if bare else self.user or None) or at.user,
            password=self.password or at.password,
            token=self.token or (self.user if bare else None) or at.token,
            credentials=_existing(self.creds, "creds", source),
            nkey_seed_file=_existing(self.nkey, "nkey", source),
            ca=_existing(self.ca, "ca", source),
            certificate=_existing(self.cert, "cert", source),
            key=_existing(self.key, "key", source),
            source=source,
        )


def _existing(text: str, what: str, source: str) -> Path | None:
    if not text:
        return None
    path = Path(os.path.expandvars(text)).expanduser()
    if not path.is_file():
        raise InvalidSetting(f"{source}: its {what} file {path} is missing")
    return path


def _split(url: str, source: str) -> SplitResult:
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        # Asking for the port checks it: beyond 65535 it raises.
        usable = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable, parts = False, SplitResult("", "", "", "", "")
    if not usable or parts.query or parts.fragment or "@" in parts.path or re.search(r"[\s\x00-\x1f]", url):
        raise InvalidSetting(f"{source} is no NATS URL: write nats://host:port, or tls, ws, wss")
    return parts


def _data(environment: Mapping[str, str]) -> Path:
    given = environment.get(DATA_VARIABLE)
    return Path(given).expanduser() if given else default_data_dir()


def _contexts(environment: Mapping[str, str]) -> Path:
    given = environment.get("XDG_CONFIG_HOME")
    return Path(given) / "nats" if given else Path.home() / ".config" / "nats"


def _selected(environment: Mapping[str, str]) -> str | None:
    try:
        with (_contexts(environment) / "context.txt").open(encoding="utf-8") as file:
            return file.read(256).strip() or None
    except (OSError, UnicodeDecodeError):
        return None
