from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import FacestreamError, TextError
from stream.common.names import MAX_NAME, clean_name, look_alike, quoted

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=220)
"""Surrogates, controls and unassigned characters, too."""


@pytest.mark.parametrize(
    "name",
    [
        "Ann",
        "Renée",
        "大厅",
        "Đặng Thị",
        "محمد",
        "Владимир",
        "O'Brien-Smith",
        "नमिता",
        "山田 太郎",
        "x" * 200,
    ],
)
def test_names_of_any_script_stay_as_they_are(name: str):
    assert clean_name(name) == unicodedata.normalize("NFC", name)


def test_joiners_stay_where_a_script_needs_them():
    for name in ("نوش\u200cآفرین", "क्\u200dष"):
        assert clean_name(name) == unicodedata.normalize("NFC", name)
    for name in ("A\u200cnn", "A\u200dnn", "\u200cآ", "آ\u200c"):
        with pytest.raises(TextError, match=r"U\+200[CD]"):
            clean_name(name)


def test_both_forms_of_a_letter_are_one():
    assert clean_name("Rene\u0301e") == clean_name("Ren\u00e9e") == "Ren\u00e9e"
    assert clean_name("山田\u3000太郎") == "山田 太郎"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        ("x" * 201, "201 characters, expected 1 to 200"),
        (" x ", "spaces at its ends"),
        ("a\nb", r"U\+000A"),
        ("a\x00", r"U\+0000"),
        ("Ren\udce9e", "not valid UTF-8"),
        ("\u202eevil", r"U\+202E \(right-to-left override\)"),
        ("A\u200bnn", r"U\+200B \(zero width space\)"),
        ("\u3164", r"U\+3164 \(hangul filler\)"),
        ("\ufe0f", r"U\+FE0F"),
        ("\u0301", "combining mark"),
        ("Ann \u0301", "combining mark"),
        ("\ue000", r"U\+E000"),
        ("\u2028", r"U\+2028"),
    ],
)
def test_what_cannot_be_a_name_is_refused_with_the_reason(name: str, reason: str):
    with pytest.raises(TextError, match=reason) as caught:
        clean_name(name, what="folder")
    assert isinstance(caught.value, FacestreamError)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith("folder: ")
    assert str(caught.value).isprintable()


@given(ANY_TEXT)
def test_any_text_is_a_clean_name_or_is_refused_in_one_line(text: str):
    try:
        name = clean_name(text)
    except TextError as exc:
        reason = str(exc)
    else:
        reason = ""
    if reason:
        assert reason.isprintable()
        return
    assert clean_name(name) == name == unicodedata.normalize("NFC", name)
    assert name == name.strip()
    assert 1 <= len(name) <= MAX_NAME
    name.encode()
    assert clean_name(unicodedata.normalize("NFD", name)) == name


@given(ANY_TEXT)
def test_any_text_can_be_quoted(text: str):
    assert quoted(text).isprintable()
    quoted(text).encode()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ann Lee", "ann lee"),
        ("Bill_Gates", "Bill Gates"),
        ("Ann", "Аnn"),  # noqa: RUF001 - a Cyrillic letter
        ("Scope", "Ѕсоре"),  # noqa: RUF001
        ("AI", "Al"),
        ("Ann  Lee", "Ann Lee"),
        ("Straße", "STRASSE"),
        ("O'Hara", "O\u2019Hara"),
        ("نوش\u200cآفرین", "نوشآفرین"),
    ],
)
def test_names_that_look_the_same_are_told(one: str, other: str):
    assert look_alike(one) == look_alike(other)


@pytest.mark.parametrize(("one", "other"), [("Ann", "Anna"), ("Renée", "Renee"), ("大厅", "入口")])
def test_other_names_are_others(one: str, other: str):
    assert look_alike(one) != look_alike(other)
