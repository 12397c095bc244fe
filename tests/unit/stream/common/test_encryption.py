from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from stream.common.encryption import KEY_VARIABLE, Sealer

KEY = bytes(range(32))


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_what_was_sealed_opens(plain: bytes, context: bytes):
    sealed = Sealer(KEY).seal(plain, context=context)
    assert len(sealed) == len(plain) + 28
    assert Sealer(KEY).open(sealed, context=context) == plain


def test_the_same_piece_is_sealed_differently_each_time():
    sealer = Sealer(KEY)
    assert sealer.seal(b"face", context=b"") != sealer.seal(b"face", context=b"")


@given(st.integers(0, 31), st.integers(1, 255))
def test_a_changed_byte_is_seen(place: int, change: int):
    sealed = bytearray(Sealer(KEY).seal(b"face", context=b"row 1"))
    sealed[place] ^= change
    with pytest.raises(ValueError, match="another key"):
        Sealer(KEY).open(bytes(sealed), context=b"row 1")


def test_another_key_another_place_and_a_stump_do_not_open():
    sealed = Sealer(KEY).seal(b"face", context=b"row 1")
    for sealer, piece, context in (
        (Sealer(bytes(32)), sealed, b"row 1"),
        (Sealer(KEY), sealed, b"row 2"),
        (Sealer(KEY), sealed[:9], b"row 1"),
        (Sealer(KEY), b"", b"row 1"),
    ):
        with pytest.raises(ValueError, match="another key"):
            sealer.open(piece, context=context)


def test_the_key_comes_from_the_environment():
    sealer = Sealer.from_environment({KEY_VARIABLE: base64.b64encode(KEY).decode()})
    assert sealer is not None
    assert sealer.fingerprint == Sealer(KEY).fingerprint != Sealer(bytes(32)).fingerprint
    assert Sealer.from_environment({}) is None
    assert Sealer.from_environment({KEY_VARIABLE: ""}) is None


@pytest.mark.parametrize("text", ["geheim", base64.b64encode(b"short").decode(), "ä"])
def test_what_is_no_key_is_refused_without_being_repeated(text: str):
    with pytest.raises(ConfigError, match=f"{KEY_VARIABLE}: expected 32 bytes") as caught:
        Sealer.from_environment({KEY_VARIABLE: text})
    assert text not in str(caught.value)


def test_a_sealer_does_not_show_its_key():
    assert base64.b64encode(KEY).decode() not in repr(Sealer(KEY))
    assert KEY.hex() not in repr(Sealer(KEY))


def test_each_file_has_a_key_of_its_own():
    one, other = Sealer(KEY).for_file(b"1" * 16), Sealer(KEY).for_file(b"2" * 16)
    sealed = one.seal(b"face", context=b"")
    assert Sealer(KEY).for_file(b"1" * 16).open(sealed, context=b"") == b"face"
    for sealer in (other, Sealer(KEY)):
        with pytest.raises(ValueError, match="another key"):
            sealer.open(sealed, context=b"")
