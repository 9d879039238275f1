"""nats-py's client without those of its faults (2.16) that we have met, and with a short way for bursts.

What is mended: a message that cannot be read, and an answer to a ping that nobody waits for any more, end the reading,
and the connection stays; a ping overtakes what is pending; any complaint of the server ends the connection; a TLS
handshake that fails, and a server that reads no more, are waited for without end; a server that does not encrypt is
told everything in the clear, whatever was asked for.

The short way: a search of ten nodes is ten publishes and ten answers. Each answer costs stock nats-py a turn of a state
machine, an object, a queue and a turn of a task; each publish a check of two subjects, a future and a turn of the task
that writes.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast
from urllib.parse import ParseResult

import nats.errors
import structlog
from nats.aio.client import DEFAULT_BUFFER_SIZE, PING_PROTO, Client, Srv
from nats.aio.transport import TcpTransport

from antiphon.bus.protocol import Headers, Take
from antiphon.bus.reader import Reader

log = structlog.get_logger("antiphon.bus")

DRAIN_TIMEOUT_S = 10
"""How long receivers have for what had arrived, when a subscription or a connection ends."""
WRITE_TIMEOUT_S = 10
"""A server that takes no bytes for so long is lost: whoever sends would wait without end."""
HANG_UP_S = 1
"""How long a goodbye may take, e.g. TLS's; then the socket is closed without one."""
Offer = Callable[[str, str, bytes, Headers | None, Any], None]
"""Called with subject, reply, payload, headers and the connection as a message is read; it must not block."""


class Socket(TcpTransport):
    """nats-py's transport, on which nothing waits without end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._writer: asyncio.StreamWriter | None = None
        self._is_aborted = self._is_closed = False

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Connect."""
        await super().connect(uri, buffer_size, connect_timeout)
        self._writer = self._io_writer

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,  # noqa: ARG002 - nats-py's
        connect_timeout: int,
    ) -> None:
        """Encrypt; a handshake that fails leaves nothing behind that is waited for."""
        assert self._writer is not None, "connect() comes first"
        host = uri if isinstance(uri, str) else uri.hostname
        try:
            async with asyncio.timeout(connect_timeout):
                await self._writer.start_tls(ssl_context, server_hostname=host)
        except BaseException:
            self.abort()
            raise

    @property
    def is_idle(self) -> bool:
        """Whether all that was written has gone, so that more may be written without waiting."""
        writer = self._io_writer
        return (
            writer is not None and writer.transport.get_write_buffer_size() == 0 and not writer.transport.is_closing()
        )

    async def drain(self) -> None:
        """Return when there is room for more; raise `TimeoutError` if there is none in time."""
        assert self._writer is not None, "connect() comes first"
        if self._writer.transport.get_write_buffer_size() == 0:
            await self._writer.drain()
            return
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await self._writer.drain()

    async def wait_closed(self) -> None:
        """Return when the socket is closed, in time."""
        if self._writer is None:
            return
        if self._is_aborted:  # after a handshake that has failed nobody says that it is closed
            for _ in range(3):  # the loop closes it in its next turns
                await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(HANG_UP_S):
                await self._writer.wait_closed()
        except TimeoutError:
            self.abort()
        except OSError:
            pass
        self._is_closed = True

    def abort(self) -> None:
        """Close at once, and forget what was not sent."""
        self._is_aborted = True
        if self._writer is not None and not self._is_closed:
            self._writer.transport.abort()


class StrictClient(Client):
    """nats-py's client.

    Args:
        needs_tls: whether to speak to a server that encrypts and to no other.
    """

    def __init__(self, *, needs_tls: bool = False) -> None:
        super().__init__()
        self._ps = Reader(self)
        self.taps: dict[int, Take] = {}
        """Subscription -> who takes its messages as they are read."""
        self.offers: dict[int, Offer] = {}
        """Subscription -> who queues its messages; nats-py's queues end with the connection."""
        self.needs_tls = needs_tls
        self._lost = asyncio.Event()
        self._is_writing = False

    # -- what the server says of itself

    @property
    def asks_for_login(self) -> bool:
        """Whether the server's greeting asked for one."""
        return bool(self._server_info.get("auth_required"))

    def _connect_command(self) -> bytes:
        """Return the first line; a token is told to a server that asks for a login and to no other."""
        if not self.asks_for_login:
            self.options["token"] = None
        command: bytes = super()._connect_command()
        return command

    @property
    def asks_for_certificate(self) -> bool:
        """Whether the server's greeting asked for one."""
        return bool(self._server_info.get("tls_verify"))

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Read a greeting, which whoever stands between can change: nothing is said in the clear that must not be."""
        if initial_connection and self.needs_tls and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise nats.errors.SecureConnWantedError
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    # -- connections

    async def _connect_to_server(self, s: Srv) -> None:
        if s.uri.scheme in ("ws", "wss"):
            await super()._connect_to_server(s)
            return
        s.last_attempt = time.monotonic()
        socket = Socket()
        await socket.connect(s.uri, DEFAULT_BUFFER_SIZE, self.options["connect_timeout"])
        self._transport = socket

    async def _process_err(self, err_msg: str) -> None:
        """Tell of a complaint; the server ends the connection itself where it means to.

        Stock nats-py closes it on all but two complaints, also where the server goes on: one subscription too many.
        """
        await self._error_cb(nats.errors.Error("nats: " + err_msg.strip("'")))

    async def _process_op_err(self, e: Exception) -> None:
        self._lost.set()
        await super()._process_op_err(e)
        self._forget()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        try:
            await super()._close(status, do_cbs)
        finally:
            self._forget()

    def _forget(self) -> None:
        """Forget what was not sent, which would come too late, and let nobody wait for it or for an answer."""
        self._pending.clear()  # pyright: ignore[reportUnknownMemberType] - nats-py's lists name no items
        self._pending_data_size = 0
        for answer in cast("list[asyncio.Future[bool]]", self._pongs):  # pyright: ignore[reportUnknownMemberType] - untyped
            if not answer.done():
                answer.set_exception(nats.errors.ConnectionClosedError())
                answer.exception()  # a ping that nobody waits for is no error
        flushes = cast("asyncio.Queue[asyncio.Future[None]] | None", self._flush_queue)
        while flushes is not None and not flushes.empty():
            written = flushes.get_nowait()
            if not written.done():
                written.set_result(None)

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        await super()._send_command(cmd, priority)
        if self.is_closed:  # it was, while this waited for room
            raise nats.errors.ConnectionClosedError

    async def _flush_pending(self, force_flush: bool = False) -> None:
        """Write soon; what nats-py returns of it, nobody here reads."""
        if force_flush or not self.is_connected:
            await super()._flush_pending(force_flush)
        else:
            self._write_soon()

    async def end(self) -> None:
        """Have everything received that had arrived, send what is left, and disconnect; in time, and for good."""
        self.options["allow_reconnect"] = False
        if not (self.is_connected and await self._is_drained()):
            self._forget()
            if isinstance(self._transport, Socket):
                self._transport.abort()
        with suppress(OSError, nats.errors.Error):
            await self.close()

    async def _is_drained(self) -> bool:
        """Drain, and return whether that was possible."""
        self._lost.clear()
        draining, losing = asyncio.ensure_future(self._drain_all()), asyncio.ensure_future(self._lost.wait())
        ends = {draining, losing}
        try:
            await asyncio.wait(ends, timeout=DRAIN_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            return draining.done() and draining.result()
        finally:
            for one in ends:
                one.cancel()
            await asyncio.wait(ends, timeout=HANG_UP_S)  # nats-py swallows a cancellation here and there

    async def _drain_all(self) -> bool:
        subscriptions = tuple(self._subs.values())
        await asyncio.gather(*(one.drain() for one in subscriptions), return_exceptions=True)  # type: ignore[no-untyped-call]
        try:
            await self.flush(DRAIN_TIMEOUT_S)
        except (OSError, nats.errors.Error):
            return False
        return True

    # -- messages

    def expect(self, sid: int = 0, *, take: Take | None = None, offer: Offer | None = None) -> int:
        """Have the messages of a subscription, or of a new one, handed to `take` or to `offer`; return its id."""
        if not sid:
            self._sid += 1
            sid = self._sid
        if take is not None:
            self.taps[sid] = take
        elif offer is not None:
            self.offers[sid] = offer
        return sid

    async def listen(self, sid: int, subject: str, queue: str) -> None:
        """Subscribe."""
        await self._send_command(f"SUB {subject} {queue} {sid}\r\n".encode())
        await self._flush_pending()

    async def leave(self, sid: int) -> None:
        """Unsubscribe; what was sent to us before still comes, ahead of the answer to a flush."""
        if self.is_connected:
            await self._send_unsubscribe(sid)

    def forget(self, sid: int) -> None:
        """Hand nothing of a subscription to anybody any more."""
        self.taps.pop(sid, None)
        self.offers.pop(sid, None)

    async def publish_each(self, ways: Sequence[tuple[str, str]], payload: bytes) -> None:
        """Publish the same payload to each (subject, reply) as one write."""
        tail = b" %d\r\n%b\r\n" % (len(payload), payload)
        burst = b"".join([f"PUB {subject} {reply}".encode() + tail for subject, reply in ways])
        self.stats["out_msgs"] += len(ways)
        self.stats["out_bytes"] += len(payload) * len(ways)
        await self._send_command(burst)
        await self._flush_pending()

    def post(self, subject: str, reply: str, payload: bytes, block: bytes = b"") -> bool:
        """Publish, with a block of headers or none; return False, having done nothing, where there is no room yet."""
        size = len(block) + len(payload)
        if self._pending_data_size + size > self._max_pending_size or not self.is_connected:
            return False
        if len(subject.split()) != 1 or len(reply.split()) > 1:
            raise nats.errors.BadSubjectError
        line = f"HPUB {subject} {reply} {len(block)} {size}\r\n" if block else f"PUB {subject} {reply} {size}\r\n"
        command = b"%b%b%b\r\n" % (line.encode(), block, payload)
        self._pending.append(command)  # pyright: ignore[reportUnknownMemberType] - nats-py's lists name no items
        self._pending_data_size += len(command)
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += size
        self._write_soon()
        return True

    def _write_soon(self) -> None:
        """Write what is pending in the loop's next turn, with whatever else is published in this one."""
        if not self._is_writing:
            self._is_writing = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._is_writing = False
        pending = self._pending  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - as above
        if not pending or not self.is_connected:
            return
        queue = self._flush_queue
        if queue is None or not queue.empty():
            return  # nats-py's own task writes it; whoever waits there for room must not be told of any too early
        socket = self._transport
        if isinstance(socket, Socket) and socket.is_idle:
            self._pending = []
            self._pending_data_size = 0
            socket.write(pending[0] if len(pending) == 1 else b"".join(pending))  # type: ignore[no-untyped-call]
        else:
            # it waits until there is room
            queue.put_nowait(asyncio.get_running_loop().create_future())

    def deliver(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Headers | None = None) -> bool:
        """Hand a message to whoever takes those of its subscription; return whether that is one of ours.

        Raises `UnicodeDecodeError` for a subject that is no text.
        """
        take = self.taps.get(sid)
        if take is not None:
            self._tapped(take, subject.decode(), data, headers)
        else:
            offer = self.offers.get(sid)
            if offer is None:
                return False
            offer(subject.decode(), reply.decode(), data, headers, self)
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        return True

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Drop a message that cannot be read; stock nats-py stops reading for good, and anybody could send one."""
        try:
            found: Headers | None = None
            if headers and (sid in self.taps or sid in self.offers):
                found = await self._process_headers(headers)  # pyright: ignore[reportUnknownMemberType] - untyped
            if not self.deliver(sid, subject, reply, data, found):
                await super()._process_msg(sid, subject, reply, data, headers)
        except (ValueError, IndexError) as error:
            # a subject that is not UTF-8, a header block of a bare or an undecodable status
            await self._error_cb(error)

    def _tapped(self, take: Take, subject: str, data: bytes, headers: Headers | None) -> None:
        try:
            take(subject, data, headers)
        except Exception:
            # as for other receivers: a bug loses its message, not the connection's reader
            log.exception("bus.receiver_bug", subject=subject)

    async def _process_pong(self) -> None:
        """Pass over an answer that nobody waits for any more."""
        pongs = cast("list[asyncio.Future[bool]]", self._pongs)  # pyright: ignore[reportUnknownMemberType] - untyped
        if pongs and pongs[0].done():
            pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _read_loop(self) -> None:
        """End a connection that is read no more, whatever the reason is."""
        await super()._read_loop()
        await self._process_op_err(nats.errors.UnexpectedEOF())

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        """Ping behind what is pending; stock nats-py overtakes it, and a flush returns before it was sent."""
        if not self.is_connected:
            await super()._send_ping(future)  # pyright: ignore[reportUnknownMemberType] - nats-py's futures name no result
            return
        self._pongs.append(  # pyright: ignore[reportUnknownMemberType] - the same
            asyncio.get_running_loop().create_future() if future is None else future
        )
        await self._send_command(PING_PROTO)
        await self._flush_pending()
