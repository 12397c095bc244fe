from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.common.varint import decode_varint, encode_varint


def test_small_numbers_take_one_byte_whatever_their_sign() -> None:
    assert [encode_varint(value) for value in (0, -1, 1, 63, 64, 300)] == [
        b"\x00",
        b"\x01",
        b"\x02",
        b"\x7e",
        b"\x80\x01",
        b"\xd8\x04",
    ]


@given(st.integers(-(2**31), 2**31 - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_numbers_of_32_bits_come_back_and_end_where_they_do(value: int, before: bytes, after: bytes) -> None:
    encoded = encode_varint(value)
    assert decode_varint(before + encoded + after, len(before)) == (value, len(before) + len(encoded))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff\xff\xff\xff\xff\x01"])
def test_what_ends_too_early_or_never_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="varint"):
        decode_varint(data, 0)
