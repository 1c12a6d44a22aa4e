"""Everything Hookline raises, as one tree.

HooklineError
├── Invalid              the request is malformed; nothing was sent to the store
├── Refused              the store looked at the request and said no; nothing was written
│   ├── NotFound             no such item
│   ├── Exists               the item is there already
│   ├── VersionConflict      the named version is not the current one
│   ├── PreconditionFailed   If-Match named another version, or the item does not meet a condition
│   ├── Locked               somebody holds the item
│   ├── StaleToken           the claim that this token belongs to has ended
│   ├── NotClaimable         the item's status does not allow a claim
│   ├── Cancelled            the item was cancelled while it was held
│   ├── Paused               the key gives no claims until it is resumed
│   ├── KeyFull              the key holds as many items as it may
│   ├── TooManyFields        the item would come to have more metadata fields than it may
│   ├── ReservedKey          keys that begin with ``hookline.`` have routes of their own
│   ├── IdempotencyKeyReused the idempotency key came with another request before
│   ├── MissingScope         the API key lacks the scope that this asks for
│   ├── KeyNotAllowed        the API key is limited to other keys
│   ├── InvalidApiKey        the server asks for an API key, and was shown none that is good
│   ├── UnknownApiKey        no API key has this id, or it was revoked
│   ├── OutboxFull           too many webhook events wait; changes that would add one are refused
│   └── Corrupt              a key in the store has a type, or an item a hash, that Hookline never writes
├── Unavailable          the store could not be reached or cannot take the call; nothing was written
│   ├── StoreFull            the store is at its memory limit; what drains still works
│   └── Overloaded           too many searches of the namespace are under way, or a server has too much to do
├── OutcomeUnknown       the call was sent and its answer never came
├── Incompatible         the store's version, policy or schema does not fit this release
└── Unopenable           a sealed secret does not open: another key, another owner, or altered bytes

A refusal is also an *outcome word*: the scripts answer with the word, :data:`REFUSALS` turns it into the class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from hookline.item import Item


@dataclass(frozen=True, slots=True)
class StoppedAt:
    """Where a text of commands stopped. ``results`` are of what was done before: none where it could not be read.

    ``index`` is that of the command in the text, or of the loop that it stands in; None where it could not be read.
    """

    results: list[dict[str, Any]] = field(repr=False)
    index: int | None
    line: int
    column: int


class HooklineError(Exception):
    """Base of every error that Hookline raises on purpose. ``stopped`` is there where it ended a text of commands."""

    code: ClassVar[str] = "error"
    stopped: StoppedAt | None = None


@dataclass(frozen=True, slots=True)
class Flaw:
    """One bad field: where it stands (a JSON pointer, RFC 6901) and what was expected there."""

    pointer: str
    detail: str


TOLD_MAX = 1000
"""Characters of a name, or of a JSON pointer, that an error repeats."""


def cut(text: str, most: int = TOLD_MAX) -> str:
    """Text as an error repeats it: behind so many characters it ends with ``...``."""
    return text if len(text) <= most + 3 else f"{text[:most]}..."


def below(pointer: str, name: object) -> str:
    """The JSON pointer of a member, cut where it is long: a whole one for each of many members takes seconds."""
    step = str(name)[: TOLD_MAX + 3]
    if "~" in step or "/" in step:
        step = step.replace("~", "~0").replace("/", "~1")
    return cut(f"{pointer}/{step}")


class Invalid(HooklineError):
    """The request is malformed. ``flaws`` names each bad field and what was expected."""

    code = "invalid"

    def __init__(self, *flaws: Flaw) -> None:
        self.flaws = flaws
        super().__init__("; ".join(f"{flaw.pointer or '/'}: {flaw.detail}" for flaw in flaws))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.flaws, vars(self)

    @classmethod
    def at(cls, pointer: str, detail: str) -> Invalid:
        """The error for a single bad field."""
        return cls(Flaw(pointer, detail))


class Refused(HooklineError):
    """The store refused one operation. ``item`` is the item as it stands, where there is one."""

    code = "refused"
    explanation: ClassVar[str] = "the operation was refused"

    def __init__(self, detail: str | None = None, item: Item | None = None) -> None:
        self.item = item
        super().__init__(detail or self.explanation)


class NotFound(Refused):
    """No item has this key and sortField."""

    code = "not_found"
    explanation = "no item has this key and sortField"


class Exists(Refused):
    """An item with this key and sortField is there already."""

    code = "exists"
    explanation = "an item with this key and sortField exists; update it, or create with upsert"


class VersionConflict(Refused):
    """The version that the request names is not the current one."""

    code = "version_conflict"
    explanation = "the named version is not the current one; read the item again and decide anew"


class PreconditionFailed(Refused):
    """If-Match names a version that is not the current one, or the item does not meet the condition of the write."""

    code = "precondition_failed"
    explanation = "If-Match does not name the current version, or the item does not meet the condition"


class Locked(Refused):
    """Somebody holds the item, or the named worker is not its holder."""

    code = "locked"
    explanation = "the item is held by a worker; wait for locked_until or show the claim's token"


class StaleToken(Refused):
    """The claim of this token has ended: it was settled, or another worker took the item over."""

    code = "stale_token"
    explanation = "the claim that this token belongs to has ended"


class NotClaimable(Refused):
    """The item is in a status from which it cannot be claimed."""

    code = "not_claimable"
    explanation = "the item's status does not allow a claim; name its current version to start it anyway"


class Cancelled(Refused):
    """The item was cancelled while it was held: stop working on it."""

    code = "cancelled"
    explanation = "the item was cancelled; stop working on it"


class Paused(Refused):
    """The key is paused: its items are not claimed until it is resumed."""

    code = "paused"
    explanation = "the key is paused: resume it, and its items can be claimed again"


class KeyFull(Refused):
    """The key holds as many items as its setting ``maxLength`` allows."""

    code = "key_full"
    explanation = "the key holds as many items as its maxLength allows; delete some, or try again later"


class TooManyFields(Refused):
    """The write adds metadata fields, and the item would have more of them than 1,024."""

    code = "too_many_fields"
    explanation = (
        "the item would have more than 1,024 metadata fields: remove some, by null, or put them into its content"
    )


class ReservedKey(Refused):
    """Keys that begin with ``hookline.`` are written through routes of their own."""

    code = "reserved_key"
    explanation = "keys that begin with 'hookline.' are written through their own routes only"


class IdempotencyKeyReused(Refused):
    """The idempotency key was brought by a request that asked for something else."""

    code = "idempotency_key_reused"
    explanation = "the idempotency key came with another request before; a new request takes a new key"


class MissingScope(Refused):
    """The API key lacks the scope that the operation asks for."""

    code = "missing_scope"
    explanation = "the API key lacks the scope that this asks for"


class KeyNotAllowed(Refused):
    """The API key is limited to keys of other names."""

    code = "key_not_allowed"
    explanation = "the API key is limited to other keys than this"


class InvalidApiKey(Refused):
    """The server asks for an API key, and was shown none that is good."""

    code = "invalid_api_key"
    explanation = "the server asks for an API key, and was shown none that is good"


class UnknownApiKey(Refused):
    """No API key has this id, or it was revoked."""

    code = "unknown_api_key"
    explanation = "no API key has this id, or it was revoked"


class OutboxFull(Refused):
    """As many webhook events wait as the outbox may hold; repeat later, or with triggers off."""

    code = "outbox_full"
    explanation = "too many webhook events wait for delivery; try again later or turn triggers off"


class Corrupt(Refused):
    """A key in the store has a type, or an item a hash, that Hookline never writes there."""

    code = "corrupt"
    explanation = "a key that this operation needs has the wrong type in the store; nothing was written"


class Unavailable(HooklineError):
    """The store could not be reached or cannot take the call now; nothing was written, a repeat is safe.

    ``unsent``: a client had no connection to send the request by.
    """

    code = "unavailable"
    unsent = False


class StoreFull(Unavailable):
    """The store is at its memory limit: claims, settles and deletes still work, growth is refused."""

    code = "store_full"


class Overloaded(Unavailable):
    """Too many searches of this namespace are under way; or a server has too much to do for this."""

    code = "overloaded"

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(
            detail or "too many searches of this namespace are under way: try again later, or give the filters an index"
        )


class OutcomeUnknown(HooklineError):
    """The call was sent and no answer came, also when asked again: it may or may not have taken effect."""

    code = "outcome_unknown"


class Incompatible(HooklineError):
    """The store cannot be used as it is: its version, policy, schema or partitions do not fit; or it lets nobody in."""

    code = "incompatible"


def check_loop(what: str, home: AbstractEventLoop | None, here: AbstractEventLoop) -> None:
    """Refuse to use here what is open in another event loop: nobody would be told of its answers.

    Raises:
        RuntimeError: that one is not closed.
    """
    if home and home is not here and not home.is_closed():
        raise RuntimeError(f"{what} belongs to another event loop: make one for each, or use SyncClient")


REFUSALS: dict[str, type[Refused]] = {
    refusal.code: refusal
    for refusal in (
        NotFound,
        Exists,
        VersionConflict,
        PreconditionFailed,
        Locked,
        StaleToken,
        NotClaimable,
        Cancelled,
        Paused,
        KeyFull,
        TooManyFields,
        IdempotencyKeyReused,
        OutboxFull,
        Corrupt,
    )
}
"""Outcome word of the scripts -> the error that a single verb raises for it."""

OUTCOMES: frozenset[str] = frozenset({"ok", "settings_changed", *REFUSALS})
"""Every word that a script may answer with; ``tests/lua/test_outcome.py`` compares it with the Lua list."""
