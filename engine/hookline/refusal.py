"""What the store says in place of a result, as an error of ours."""

from __future__ import annotations

from redis import exceptions as redis_errors

from hookline.errors import HooklineError, Incompatible, Unavailable

_NOT_NOW = ("MISCONF", "LOADING", "BUSY", "READONLY", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN")
_ELSEWHERE = "non local key"
"""In what a node of a cluster says of a script that asks for keys of another one."""


class Apart(HooklineError):
    """Partitions that were to be read together are at several nodes."""


def translate(error: redis_errors.ResponseError) -> HooklineError:
    """The error that a refusal means."""
    # redis-py takes the code off the text of those errors that it knows.
    text = str(error)
    word = error.status_code or text.split(" ", 1)[0]
    if word in _NOT_NOW:
        return Unavailable(f"the store cannot take writes now: {text}")
    if isinstance(error, redis_errors.NoPermissionError):
        return Incompatible(f"the store's user lacks a permission: {text}")
    if _ELSEWHERE in text:
        return Apart(text)
    return HooklineError(f"the store refused a call that it should take: {text}")
