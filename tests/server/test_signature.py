"""Signatures, judged by the public ``standardwebhooks`` package and by a published example."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from hookline_server.signature import format_secret, sign

SECRET = bytes(range(32))
BODY = '{"dataChanged":{"metadata":{"status":"started"}},"name":"žluťoučký"}'.encode()


def headers(signature: str, timestamp: int) -> dict[str, str]:
    return {
        "webhook-id": "default-0-1-0",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature,
    }


def test_published_example() -> None:
    """The example of the specification's reference implementations."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}') == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_receiver_accepts() -> None:
    now = int(time.time())
    signature = sign(SECRET, "default-0-1-0", now, BODY)
    assert Webhook(format_secret(SECRET)).verify(BODY, headers(signature, now))["name"] == "žluťoučký"


@pytest.mark.parametrize("wrong", ["secret", "id", "timestamp", "body"])
def test_receiver_refuses_what_was_not_signed(wrong: str) -> None:
    now = int(time.time())
    signature = sign(
        SECRET[::-1] if wrong == "secret" else SECRET,
        "default-0-2-0" if wrong == "id" else "default-0-1-0",
        now - 1 if wrong == "timestamp" else now,
        BODY + b" " if wrong == "body" else BODY,
    )
    with pytest.raises(WebhookVerificationError):
        Webhook(format_secret(SECRET)).verify(BODY, headers(signature, now))


def test_both_secrets_during_rotation() -> None:
    now = int(time.time())
    old, new = SECRET, SECRET[::-1]
    both = " ".join(sign(secret, "default-0-1-0", now, BODY) for secret in (new, old))
    for secret in (old, new):
        assert Webhook(format_secret(secret)).verify(BODY, headers(both, now))
