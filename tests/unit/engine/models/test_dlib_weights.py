from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ModelError
from engine.models.dlib_weights import CHIP_TEMPLATE_XY, _Reader, resnet_onnx


def integer(value: int) -> bytes:
    """dlib's ``serialize`` of an integer, as its source writes it."""
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_integers(value: int) -> None:
    reader = _Reader(integer(value), "test")
    reader.expect_integers("it", value)
    reader.expect_end()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers(value: float) -> None:
    mantissa, denominator = value.as_integer_ratio()
    exponent = 1 - denominator.bit_length()
    while mantissa and mantissa % 2 == 0 and mantissa.bit_length() > 63:
        mantissa, exponent = mantissa // 2, exponent + 1
    assert _Reader(integer(mantissa) + integer(exponent), "test").number() == pytest.approx(value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected 1 bytes more, got 0"),
        (b"\x02\x01", "expected 2 bytes more, got 1"),
        (b"\x09" + b"\x01" * 9, "expected an integer, got the byte 9"),
        (b"\x11\x01", "expected an integer, got the byte 17"),
        (integer(3), "it: expected 2, got 3"),
        (integer(-2), "it: expected 2, got -2"),
    ],
)
def test_integers_that_are_none(data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        _Reader(data, "test").expect_integers("it", 2)


@pytest.mark.parametrize("exponent", [32000, 2**63 - 1, 1024])
def test_numbers_that_are_not_finite(exponent: int) -> None:
    with pytest.raises(ModelError, match="expected a finite number"):
        _Reader(integer(1) + integer(exponent), "test").number()


def test_tensors_of_other_sizes_take_no_memory() -> None:
    huge = integer(2) + integer(2**62) * 4
    with pytest.raises(ModelError, match="sizes: expected 3, got 4611686018427387904"):
        _Reader(huge, "test").tensor(3, 1, 1, 1)


def test_weights_that_are_no_numbers() -> None:
    nan = integer(2) + integer(1) * 4 + b"\x00\x00\xc0\x7f"
    with pytest.raises(ModelError, match="expected finite weights"):
        _Reader(nan, "test").tensor(1, 1, 1, 1)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ModelError, match="not dlib's face recognition network: at byte") as failure:
        resnet_onnx(data, origin="test.dat")
    assert "\n" not in str(failure.value)


def test_the_template_is_symmetric_and_upright() -> None:
    right_eye, left_eye, nose, right_mouth, left_mouth = CHIP_TEMPLATE_XY
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_eye[1] == left_eye[1] < nose[1] < right_mouth[1] == left_mouth[1]
    assert (right_eye[0] + left_eye[0]) / 2 == pytest.approx(nose[0], abs=1e-3)
    assert (right_mouth[0] + left_mouth[0]) / 2 == pytest.approx(nose[0], abs=1e-3)
