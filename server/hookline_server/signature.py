"""Signatures by Standard Webhooks 1.0 (https://www.standardwebhooks.com), the symmetric scheme ``v1``."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache

TOLERANCE = 300
"""Seconds by which a timestamp may be off."""


def sign(secret: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``: ``v1,`` and the base64 HMAC-SHA256 over ``id.timestamp.body``.

    While a secret is being rotated, the header carries the signatures under both, joined by a space.

    Args:
        secret: the key itself, not its ``whsec_`` form; 24 to 64 bytes by the specification.
        webhook_id: ``webhook-id``, the same on every attempt.
        timestamp: ``webhook-timestamp``, whole seconds since 1970, new on each attempt.
        body: the bytes as they are sent.
    """
    keyed = _keyed(secret).copy()
    keyed.update(f"{webhook_id}.{timestamp}.".encode() + body)
    return "v1," + base64.b64encode(keyed.digest()).decode()


@lru_cache(maxsize=64)
def _keyed(secret: bytes) -> hmac.HMAC:
    """To be copied: the first half of the work of a signature is the same for all that a secret signs."""
    return hmac.new(secret, digestmod="sha256")


def format_secret(secret: bytes) -> str:
    """The form in which receivers take a signing secret: ``whsec_`` and base64."""
    return "whsec_" + base64.b64encode(secret).decode()


def read_secret(text: str) -> bytes:
    """The secret in that form -> the key itself.

    Raises:
        ValueError: it is not in that form.
    """
    try:
        if text.startswith("whsec_"):
            return base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        pass
    raise ValueError("expected a secret: whsec_ and base64")


def verify(secrets: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether one of these secrets has signed a webhook within 5 minutes of ``now`` (seconds since 1970)."""
    webhook_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (
        timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16 and abs(now - int(timestamp)) <= TOLERANCE
    ):
        return False
    wanted = [sign(secret, webhook_id, int(timestamp), body).encode() for secret in secrets]
    given = headers.get("webhook-signature", "").encode(errors="replace").split(b" ")
    return any(hmac.compare_digest(one, other) for one in wanted for other in given)
