"""Secrets at rest: a box that seals short texts for one owner, and the key of that box.

What is sealed: the API keys of triggers, in items, outbox entries and deliveries. The key of the box never
enters the store.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import re
import stat
import tempfile
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hookline.errors import HooklineError, Invalid

KEY_BYTES = 32
"""AES-256."""
SECRET_FILE = "secret"  # noqa: S105 - a file's name
"""Where the key is, in the directory of the data."""

_VERSION = b"\x01"
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12  # the 96 bits that NIST SP 800-38D section 8.2.2 asks of a random nonce
_TAG_BYTES = 16
_HASH_BYTES = 32
_CIPHERS = 256  # kept at hand: items change more than once, and a key's triggers are opened for each of its items
_HEADER_BYTES = len(_VERSION) + _KEY_ID_BYTES

_HEX = re.compile(r"[0-9A-Fa-f]{64}", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{43}=?", re.ASCII)  # 32 bytes, in either alphabet of RFC 4648
_EXPECTED = "expected 64 hexadecimal digits or the base64 of 32 bytes"


class Unopenable(HooklineError, ValueError):
    """A sealed value cannot be opened: another key, another owner, or altered bytes."""

    code = "unopenable"


class SecretBox:
    """Seals texts with AES-256-GCM under one key, with the owner's identity as associated data.

    A sealed value moved to another owner does not open there. An envelope is one version byte, four bytes
    that name the key, a random 96-bit nonce, ciphertext and tag. Each owner has an AES key derived from the
    one key: NIST SP 800-38D section 8.3 ends the life of an AES key after 2**32 random nonces, which a busy
    store would reach in weeks and a single item never does.

    Raises:
        ValueError: the key is not 32 bytes long.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"expected a key of {KEY_BYTES} bytes, got {len(key)}")
        # HKDF-SHA256 (RFC 5869) without salt. Its first step is the same for all that is derived.
        self._root = hmac.new(hmac.digest(bytes(_HASH_BYTES), key, "sha256"), digestmod="sha256")
        self._cipher = lru_cache(_CIPHERS)(self._make_cipher)
        self._header = _VERSION + self._expand(b"key-id", b"")[:_KEY_ID_BYTES]

    def seal(self, plain: str, identity: bytes) -> bytes:
        """The envelope of ``plain`` for one owner; another one on every call.

        Raises:
            ValueError: the text holds a lone surrogate, which UTF-8 cannot carry.
        """
        try:
            text = plain.encode()
        except UnicodeEncodeError:  # carries the text with it, so it must not be passed on
            raise ValueError("expected text that UTF-8 can carry, without lone surrogates") from None
        nonce = os.urandom(_NONCE_BYTES)
        return self._header + nonce + self._cipher(identity).encrypt(nonce, text, self._header + identity)

    def open(self, sealed: bytes, identity: bytes) -> str:
        """The text that :meth:`seal` was given.

        Raises:
            Unopenable: sealed under another key or for another owner, altered, or no envelope at all.
        """
        if not sealed.startswith(_VERSION) or len(sealed) < _HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES:
            raise Unopenable("this is no sealed value that this release can read")
        if not sealed.startswith(self._header):
            raise Unopenable("the value was sealed under another key than the one configured now")
        nonce, body = sealed[_HEADER_BYTES:][:_NONCE_BYTES], sealed[_HEADER_BYTES + _NONCE_BYTES :]
        try:
            return self._cipher(identity).decrypt(nonce, body, self._header + identity).decode()
        except InvalidTag:
            raise Unopenable("the value was sealed for another owner, or it has been altered") from None

    def derive(self, purpose: str) -> bytes:
        """32 bytes for another purpose, always the same for the same key, e.g. ``webhook-signing:default``.

        HKDF-SHA256 (RFC 5869) without salt: they tell nothing about the key or about what other purposes get.
        """
        return self._expand(b"derive", purpose.encode())

    def _make_cipher(self, identity: bytes) -> AESGCM:
        return AESGCM(self._expand(b"seal", identity))

    def _expand(self, label: bytes, context: bytes) -> bytes:
        """The label ends at the first NUL and holds none, so no two labels can meet in one ``info``."""
        info = b"hookline/" + label + b"\0" + context
        keyed = self._root.copy()
        keyed.update(info + b"\x01")  # the first block, which is as long as a key
        return keyed.digest()


def load_key(text: str | None, data: Path) -> bytes:
    """The key of this installation.

    Args:
        text: the value of ``HOOKLINE_SECRET_KEY``, None if it is not set. An empty one is refused: quietly
            taking the key from a file instead would seal under a key that nobody chose.
        data: the data directory; without ``text`` the key is in its file ``secret``, made if missing.

    Raises:
        Invalid: the text or the file holds no key, or others may use the file. The value is never shown.
        OSError: the file cannot be read or made.
    """
    return _parse("HOOKLINE_SECRET_KEY", text) if text is not None else _read(data / SECRET_FILE)


def _parse(where: str, text: str) -> bytes:
    word = text.strip()
    if _HEX.fullmatch(word):
        return bytes.fromhex(word)
    if _BASE64.fullmatch(word):
        return base64.urlsafe_b64decode(word[:43].replace("+", "-").replace("/", "_") + "=")
    raise Invalid.at(where, f"{_EXPECTED}, got {len(word)} characters that are neither")


def _read(path: Path) -> bytes:
    if not path.exists():
        _create(path)
    # O_NONBLOCK: a pipe in its place must not hang the start. What is checked is the opened file, not a name.
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Invalid.at(str(path), "expected a regular file")
        mode = stat.S_IMODE(status.st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise Invalid.at(str(path), f"expected mode 0600, so that nobody else reads it, got {mode:04o}")
        content = file.read(1024)  # a key has 65 bytes at most; a wrong file may have any number
    return _parse(str(path), content.decode("latin-1"))


def _create(path: Path) -> None:
    """Put a new key there, complete and on disk, unless another process was first.

    An O_EXCL open of the final name would let a second process read it before the key is in it, and a crash
    leave it empty. So the key goes into a file of its own (mkstemp: O_EXCL, 0600) and is then linked.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".secret-")
    try:
        with open(handle, "wb") as file:  # noqa: PTH123
            file.write(os.urandom(KEY_BYTES).hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # what is sealed under a key that a power cut takes away is lost
    finally:
        os.close(folder)
