"""The errors of Antiphon: one tree, and each class crosses the bus as itself.

The wire code is API, the text is for people. `retryable` says whether the same request can help later.
A partial answer is not an error: it is an answer that says what is missing.

```
AntiphonError
├── RequestError           the asker is to blame
│   ├── Malformed          the bytes are not the declared message
│   ├── Oversize           the message is larger than its bound
│   ├── UnknownVersion     a major version that this process does not speak
│   ├── InvalidName        a name or subject token outside the grammar
│   ├── NotAuthenticated   the credential is missing or refused; the text says what to do
│   ├── NotAllowed         this identity may not ask this
│   ├── UnknownNode        a node was named that is not registered
│   ├── UnknownIdentity    an identity or a credential was named that there is none of
│   ├── AlreadyRegistered  a node or an identity was to be made that is there already, and is another
│   ├── UnknownAction      an action was named that there is none of there
│   ├── UnknownJob         a job was named that there is none of, or none that the asker may see
│   ├── UnknownMethod      a fusion method or balancing strategy was named that is not in its catalogue
│   ├── CursorExpired      the page's list is gone (60 s by default)
│   ├── InvalidSaga        a saga's steps, order or references make no sense together
│   ├── UnknownSaga        a saga was named that there is none of
│   ├── AlreadySubmitted   a saga was submitted under the id of another one
│   ├── WrongState         an order that a saga cannot take as it is now
│   ├── SagaUndone         a saga whose results are wanted was undone, or abandoned
│   ├── Unconfirmed        a destructive action was not confirmed
│   ├── InvalidQuery       a statement to the record does more than read, or is no SQL
│   ├── QueryLimit         a statement to the record took too much time, memory or room
│   ├── Declined           the handler of an action will not do it, and says why
│   ├── Cancelled          the job was cancelled before it had ended
│   └── Abandoned          the asker left before there was an answer
├── ServiceError           the answering side is to blame
│   ├── Internal           a bug while answering; the details are in the responder's log
│   ├── HandlerFailed      the node author's handler raised
│   ├── Overloaded         a bounded queue is full; `retry_after_ms` says when to come back
│   ├── Stopping           the responder is draining or restarting
│   ├── RecordUnwritable   the record's disk is full or read-only, or it is not open yet
│   └── InvalidReply       the reply is not the declared reply
├── DeliveryError          the bus could not bring it there and back
│   ├── NoResponders       nobody listens on that subject: it was never delivered
│   ├── OutOfBudget        the deadline passed
│   └── NotConnected       there is no connection to the NATS server
└── SetupError             this machine or its settings are to blame
    ├── ServerMissing      no nats-server binary was found
    ├── ServerTooOld       the server's version is below the supported one
    ├── ServerFailed       the server did not start; its own words are in the text
    ├── AlreadyRunning     another Antiphon serves this data directory
    ├── InvalidSetting     a setting or an argument has no meaning
    ├── SecretsUnusable    a file with keys or a credential is damaged, incomplete, or open to others
    └── ContentUnreadable  a connector cannot read what it was pointed at
```
"""

from __future__ import annotations

from typing import ClassVar

CODES: dict[str, type[AntiphonError]] = {}
"""Wire code -> class; filled as the classes are made."""


class AntiphonError(Exception):
    """The root of all errors that Antiphon raises on purpose."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, text: str = "", *, retry_after_ms: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.retry_after_ms = retry_after_ms

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        assert cls.code not in CODES, f"two errors share the wire code {cls.code}"
        CODES[cls.code] = cls


def from_wire(code: str, text: str, retry_after_ms: int | None = None) -> AntiphonError:
    """Return the error that crossed the bus as its own class; an unknown code becomes a `ServiceError`."""
    return CODES.get(code, ServiceError)(text, retry_after_ms=retry_after_ms)


class RequestError(AntiphonError):
    """The asker is to blame: asking the same again cannot help."""

    code = "request_error"


class Malformed(RequestError):
    """The bytes are not the declared message."""

    code = "malformed"


class Oversize(RequestError):
    """The message is larger than its bound."""

    code = "oversize"


class UnknownVersion(RequestError):
    """The message has a major version that this process does not speak."""

    code = "unknown_version"


class InvalidName(RequestError):
    """A name or subject token is outside the grammar `[a-z0-9][a-z0-9_-]{0,62}`."""

    code = "invalid_name"


class NotAuthenticated(RequestError):
    """The credential is missing or refused; the text says what to do."""

    code = "not_authenticated"


class NotAllowed(RequestError):
    """This identity may not ask this."""

    code = "not_allowed"


class UnknownNode(RequestError):
    """A node was named that is not registered."""

    code = "unknown_node"


class UnknownIdentity(RequestError):
    """An identity or a credential was named that there is none of."""

    code = "unknown_identity"


class AlreadyRegistered(RequestError):
    """A node or an identity was to be made that is there already, and is another."""

    code = "already_registered"


class UnknownAction(RequestError):
    """An action was named that there is none of there, or none that the asker may see."""

    code = "unknown_action"


class UnknownJob(RequestError):
    """A job was named that there is none of, or none that the asker may see; results are kept for a day."""

    code = "unknown_job"


class UnknownMethod(RequestError):
    """A fusion method or balancing strategy was named that is not in its catalogue."""

    code = "unknown_method"


class CursorExpired(RequestError):
    """The list that this cursor pages over is gone: ask the question again."""

    code = "cursor_expired"


class InvalidSaga(RequestError):
    """A saga's steps, their order or their references make no sense together; the text lists what is wrong."""

    code = "invalid_saga"


class UnknownSaga(RequestError):
    """A saga was named that there is none of, or none that the asker may see."""

    code = "unknown_saga"


class AlreadySubmitted(RequestError):
    """A saga was submitted under an id that another saga, input or caller has."""

    code = "already_submitted"


class WrongState(RequestError):
    """An order that a saga cannot take as it is now: it has ended, is past its pivot, or is not parked there."""

    code = "wrong_state"


class SagaUndone(RequestError):
    """A saga whose results are wanted was undone, or abandoned; the text says why, and what is not undone."""

    code = "saga_undone"


class Unconfirmed(RequestError):
    """A destructive action was not confirmed; the text says where it would run."""

    code = "unconfirmed"


class InvalidQuery(RequestError):
    """A statement to the record does more than read, names what there is not, or is no SQL."""

    code = "invalid_query"


class QueryLimit(RequestError):
    """A statement to the record took too much time, memory or room."""

    code = "query_limit"


class Declined(RequestError):
    """The handler of an action will not do what it was asked, however often; the text is the node author's own."""

    code = "declined"


class Cancelled(RequestError):
    """The job was cancelled before it had ended."""

    code = "cancelled"


class Abandoned(RequestError):
    """The asker left before there was an answer; it stands in facts, nobody waits for it."""

    code = "abandoned"


class ServiceError(AntiphonError):
    """The answering side is to blame."""

    code = "service_error"
    retryable = True


class Internal(ServiceError):
    """A bug while answering; the details stay in the responder's log."""

    code = "internal"
    retryable = False


class HandlerFailed(ServiceError):
    """The node author's handler raised; the details stay in the node's log."""

    code = "handler_failed"


class Overloaded(ServiceError):
    """A bounded queue is full; `retry_after_ms` says when to come back."""

    code = "overloaded"


class Stopping(ServiceError):
    """The responder is draining or restarting: another instance can answer."""

    code = "stopping"


class RecordUnwritable(ServiceError):
    """The record's disk is full or read-only, or it is not open yet; what is told meanwhile waits in its stream."""

    code = "record_unwritable"
    retryable = True


class InvalidReply(ServiceError):
    """The reply is not the declared reply."""

    code = "invalid_reply"
    retryable = False


class DeliveryError(AntiphonError):
    """The bus could not bring the message there and back."""

    code = "delivery_error"
    retryable = True


class NoResponders(DeliveryError):
    """Nobody listens on that subject: the message was never delivered."""

    code = "no_responders"


class OutOfBudget(DeliveryError):
    """The deadline passed before there was an answer."""

    code = "out_of_budget"


class NotConnected(DeliveryError):
    """There is no connection to the NATS server."""

    code = "not_connected"


class SetupError(AntiphonError):
    """This machine or its settings are to blame: a person has to act."""

    code = "setup_error"


class ServerMissing(SetupError):
    """No nats-server binary was found."""

    code = "server_missing"


class ServerTooOld(SetupError):
    """The server's version is below the supported one."""

    code = "server_too_old"


class ServerFailed(SetupError):
    """The server did not start; its own words are in the text."""

    code = "server_failed"


class AlreadyRunning(SetupError):
    """Another Antiphon serves this data directory."""

    code = "already_running"


class InvalidSetting(SetupError):
    """A setting or an argument has no meaning."""

    code = "invalid_setting"


class SecretsUnusable(SetupError):
    """A file with keys or a credential is damaged, incomplete, or open to others."""

    code = "secrets_unusable"


class ContentUnreadable(SetupError):
    """A connector cannot read what it was pointed at."""

    code = "content_unreadable"
