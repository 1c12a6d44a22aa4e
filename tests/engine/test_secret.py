"""The box that seals secrets, and where its key comes from."""

from __future__ import annotations

import base64
import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from hookline.errors import HooklineError, Invalid
from hookline.secret import SecretBox, Unopenable, load_key

KEY = bytes(range(32))
OWNER = b"default\0jobs\0job-001"
CANARY = "canary-7f3a-secret"
ENVELOPE_0_1 = "01015fc25c0f2d144aede0563665aaca9bb2b97534dab76ffd1d117ae4f4f914fc2e8756e0ea17d523aaba8ebb457a88c5b572"


def says(error: BaseException) -> str:
    """All that a log could show of an error, its causes included."""
    return "".join(traceback.format_exception(error)) + repr(error)


class TestSecretBox:
    @given(st.text(), st.binary())
    def test_round_trip(self, plain: str, identity: bytes) -> None:
        box = SecretBox(KEY)
        assert box.open(box.seal(plain, identity), identity) == plain

    def test_opens_after_a_restart(self) -> None:
        assert SecretBox(KEY).open(SecretBox(KEY).seal(CANARY, OWNER), OWNER) == CANARY

    def test_opens_what_earlier_releases_sealed(self) -> None:
        """The envelope is a format on disk: this one was sealed by version 0.1."""
        sealed = bytes.fromhex(ENVELOPE_0_1)
        assert SecretBox(KEY).open(sealed, OWNER) == CANARY

    def test_same_text_never_gives_the_same_envelope(self) -> None:
        box = SecretBox(KEY)
        assert len({box.seal(CANARY, OWNER) for _ in range(100)}) == 100

    def test_envelope_hides_the_text_and_adds_33_bytes(self) -> None:
        sealed = SecretBox(KEY).seal(CANARY, OWNER)
        assert CANARY.encode() not in sealed
        assert len(sealed) == len(CANARY) + 1 + 4 + 12 + 16

    @pytest.mark.parametrize(
        ("key", "identity", "message"),
        [
            (KEY[::-1], OWNER, "another key"),
            (KEY, b"default\0jobs\0job-002", "another owner"),
            (KEY, b"", "another owner"),
        ],
    )
    def test_another_key_or_owner(self, key: bytes, identity: bytes, message: str) -> None:
        sealed = SecretBox(KEY).seal(CANARY, OWNER)
        with pytest.raises(Unopenable, match=message) as caught:
            SecretBox(key).open(sealed, identity)
        assert CANARY not in says(caught.value)
        assert isinstance(caught.value, HooklineError)
        assert isinstance(caught.value, ValueError)

    def test_every_byte_is_authenticated(self) -> None:
        box = SecretBox(KEY)
        sealed = box.seal(CANARY, OWNER)
        for place in range(len(sealed)):
            altered = bytearray(sealed)
            altered[place] ^= 1
            with pytest.raises(Unopenable):
                box.open(bytes(altered), OWNER)

    def test_every_cut_is_refused(self) -> None:
        box = SecretBox(KEY)
        sealed = box.seal(CANARY, OWNER)
        for length in range(len(sealed)):
            with pytest.raises(Unopenable):
                box.open(sealed[:length], OWNER)

    @pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
    def test_key_length(self, length: int) -> None:
        with pytest.raises(ValueError, match="32 bytes"):
            SecretBox(bytes(length))

    def test_lone_surrogate_is_refused_without_showing_the_text(self) -> None:
        with pytest.raises(ValueError, match="surrogates") as caught:
            SecretBox(KEY).seal(CANARY + "\udc80", OWNER)
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        assert not hasattr(caught.value, "object")

    def test_derive_is_hkdf(self) -> None:
        expected = HKDF(SHA256(), 32, salt=None, info=b"hookline/derive\0webhook-signing:default").derive(KEY)
        assert SecretBox(KEY).derive("webhook-signing:default") == expected

    def test_derived_secrets_differ(self) -> None:
        box, other = SecretBox(KEY), SecretBox(KEY[::-1])
        assert len({box.derive("a"), box.derive("b"), other.derive("a"), KEY}) == 4

    def test_key_stays_out_of_sight(self) -> None:
        box = SecretBox(KEY)
        assert KEY.hex() not in repr(box)
        assert str(KEY) not in repr(box)


class TestKeyFromTheEnvironment:
    @pytest.mark.parametrize(
        "write",
        [
            lambda key: key.hex(),
            lambda key: key.hex().upper(),
            lambda key: f" {key.hex()}\n",
            lambda key: base64.b64encode(key).decode(),
            lambda key: base64.b64encode(key).decode().rstrip("="),
            lambda key: base64.urlsafe_b64encode(key).decode(),
        ],
    )
    @pytest.mark.parametrize("key", [KEY, bytes(32), b"\xff" * 32, b"\xfb\xff" * 16])
    def test_accepted(self, write: Callable[[bytes], str], key: bytes, tmp_path: Path) -> None:
        assert load_key(write(key), tmp_path) == key
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "hunter2-hunter2",
            KEY.hex()[:-1],
            KEY.hex() + "0",
            "g" * 64,
            base64.b64encode(bytes(31)).decode(),
            base64.b64encode(bytes(33)).decode(),
            "é" * 43,
            "٣" * 64,  # digits, but not ASCII ones
        ],
    )
    def test_refused_without_showing_the_value(self, text: str, tmp_path: Path) -> None:
        with pytest.raises(Invalid, match="HOOKLINE_SECRET_KEY: expected 64 hexadecimal digits or") as caught:
            load_key(text, tmp_path)
        assert not text or text not in says(caught.value)
        assert list(tmp_path.iterdir()) == []


class TestKeyFile:
    def test_made_once_for_the_owner_alone(self, tmp_path: Path) -> None:
        data = tmp_path / "not" / "there"
        key = load_key(None, data)
        assert len(key) == 32
        assert load_key(None, data) == key
        assert (data / "secret").stat().st_mode & 0o7777 == 0o600
        assert [file.name for file in data.iterdir()] == ["secret"]

    def test_two_installations_have_two_keys(self, tmp_path: Path) -> None:
        assert load_key(None, tmp_path / "a") != load_key(None, tmp_path / "b")

    def test_its_text_fits_the_environment_variable(self, tmp_path: Path) -> None:
        key = load_key(None, tmp_path)
        assert load_key((tmp_path / "secret").read_text(), tmp_path / "elsewhere") == key

    def test_umask_does_not_matter(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            load_key(None, tmp_path)
        finally:
            os.umask(before)
        assert (tmp_path / "secret").stat().st_mode & 0o7777 == 0o600

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
    def test_open_to_others(self, mode: int, tmp_path: Path) -> None:
        load_key(None, tmp_path)
        (tmp_path / "secret").chmod(mode)
        with pytest.raises(Invalid, match=rf"secret: expected mode 0600.* got {mode:04o}"):
            load_key(None, tmp_path)

    def test_read_only_is_fine(self, tmp_path: Path) -> None:
        key = load_key(None, tmp_path)
        (tmp_path / "secret").chmod(0o400)
        assert load_key(None, tmp_path) == key

    @pytest.mark.parametrize("content", [b"", CANARY.encode(), KEY, b"\xff" * 64, KEY.hex().encode() * 100])
    def test_no_key_in_it(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "secret").touch(mode=0o600)
        (tmp_path / "secret").write_bytes(content)
        with pytest.raises(Invalid, match=r"secret: expected 64 hexadecimal digits") as caught:
            load_key(None, tmp_path)
        assert CANARY not in says(caught.value)
        assert (tmp_path / "secret").read_bytes() == content

    def test_not_a_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "secret", 0o600)
        with pytest.raises(Invalid, match="regular file"):
            load_key(None, tmp_path)

    def test_processes_that_start_together_agree(self, tmp_path: Path) -> None:
        for round_ in range(20):
            data = tmp_path / str(round_)
            keys: list[bytes] = []
            gate = threading.Barrier(8)

            def start(data: Path = data, keys: list[bytes] = keys, gate: threading.Barrier = gate) -> None:
                gate.wait()
                keys.append(load_key(None, data))

            threads = [threading.Thread(target=start) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(keys) == 8
            assert len(set(keys)) == 1
            assert [file.name for file in data.iterdir()] == ["secret"]
