"""What docs/triggers.md gives receivers to verify signatures with: the very text, run."""

from __future__ import annotations

import base64
import hmac
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hookline_server.signature import format_secret, sign

PAGE = (Path(__file__).parents[2] / "docs/triggers.md").read_text()
SECRET, OTHER = bytes(range(32)), bytes(32)
BODY = '{"name":"žluťoučký"}'.encode()
Verify = Callable[[str, dict[str, str], bytes], bool]


def snippet(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def in_python(secret: str, headers: dict[str, str], body: bytes) -> bool:
    names: dict[str, Any] = {}
    exec(compile(snippet("python"), "docs/triggers.md", "exec"), names)
    verified: bool = names["verify"](secret, headers, body)
    return verified


def in_node(secret: str, headers: dict[str, str], body: bytes) -> bool:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    asked = ", ".join(json.dumps(part) for part in (secret, headers, body.decode()))
    text = f"{snippet('javascript')}\nconsole.log(verify({asked}))"
    done = subprocess.run([node, "-e", text], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "true"


def signed(webhook_id: str, timestamp: str) -> str:
    """The signature of a webhook whose timestamp may be no number."""
    text = f"{webhook_id}.{timestamp}.".encode() + BODY
    return "v1," + base64.b64encode(hmac.digest(SECRET, text, "sha256")).decode()


@pytest.mark.parametrize("verify", [in_python, in_node])
def test_the_snippets_tell_right_from_wrong(verify: Verify) -> None:
    now = int(time.time())
    signature = sign(SECRET, "default-0-1-0", now, BODY)
    both = f"{sign(OTHER, 'default-0-1-0', now, BODY)} {signature}"
    headers = {"webhook-id": "default-0-1-0", "webhook-timestamp": str(now), "webhook-signature": signature}
    assert verify(format_secret(SECRET), headers, BODY)
    assert verify(format_secret(SECRET), {**headers, "webhook-signature": both}, BODY)
    assert verify(format_secret(OTHER), {**headers, "webhook-signature": both}, BODY)
    assert not verify(format_secret(OTHER), headers, BODY)
    assert not verify(format_secret(SECRET), headers, BODY + b" ")
    assert not verify(format_secret(SECRET), {**headers, "webhook-id": "default-0-1-1"}, BODY)
    old = str(now - 3600)
    late = {**headers, "webhook-timestamp": old, "webhook-signature": sign(SECRET, "default-0-1-0", int(old), BODY)}
    assert not verify(format_secret(SECRET), late, BODY)


@pytest.mark.parametrize("verify", [in_python, in_node])
@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("webhook-id", None),
        ("webhook-timestamp", None),
        ("webhook-signature", None),
        ("webhook-timestamp", "yesterday"),
        ("webhook-timestamp", "nan"),
        ("webhook-timestamp", "9" * 5000),
        ("webhook-signature", "v1," + "é" * 44),  # as many characters as a good one has
    ],
)
def test_the_snippets_refuse_what_is_malformed(verify: Verify, header: str, value: str | None) -> None:
    now = str(int(time.time()))
    headers = {"webhook-id": "a", "webhook-timestamp": now, "webhook-signature": sign(SECRET, "a", int(now), BODY)}
    del headers[header]
    if value is not None:
        headers[header] = value
    if header == "webhook-timestamp":  # signed as it is sent, so that nothing but the time is wrong
        headers["webhook-signature"] = signed("a", value or "")
    assert not verify(format_secret(SECRET), headers, BODY)


@pytest.mark.parametrize("verify", [in_python, in_node])
def test_the_snippets_refuse_a_request_without_headers(verify: Verify) -> None:
    assert not verify(format_secret(SECRET), {}, BODY)
