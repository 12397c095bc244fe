"""Explain what is wrong with a configuration file: the line, the key, what is expected, the nearest key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, TypeAlias, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Place: TypeAlias = tuple[int | str, ...]
"""Keys and positions that lead to a value."""

Lines: TypeAlias = Mapping[Place, int]
"""Line numbers, from 1, of the keys and list items of a file."""

_OTHER_WORDS: Final = {
    **dict.fromkeys(("url", "address", "source", "src", "path", "file", "device", "stream"), "uri"),
    **dict.fromkeys(("name", "camera_id", "camera"), "id"),
    **dict.fromkeys(("user", "login"), "username"),
    **dict.fromkeys(("pass", "passwd", "pwd", "secret"), "password"),
    **dict.fromkeys(("fps", "frame_rate", "rate"), "analysis_fps"),
    **dict.fromkeys(("sources", "streams", "inputs"), "cameras"),
    **dict.fromkeys(("output", "outputs", "kafka", "targets"), "sinks"),
    **dict.fromkeys(("flip",), "mirror"),
    **dict.fromkeys(("people", "faces"), "gallery"),
}
"""What people write for a key."""

_EXPECTED: Final = (
    (r"string_type", "expected text; put quotes round a number, a date, or a word such as yes"),
    (r"string_.*", "expected text, got none"),
    (r"bool_.*", "expected true or false"),
    (r"int_.*", "expected a whole number"),
    (r"float_.*|finite_number", "expected a number"),
    (r"(tuple|list)_.*", "expected a list: items in lines of their own that begin with a dash"),
    (r"(model|dict|mapping)_.*", "expected keys and values in the lines below it, indented"),
    (r"date.*|time.*", "expected a time such as 2026-01-31T08:00:00+01:00"),
    (r"path_.*", "expected a path"),
    (r"literal_error", "expected {expected}"),
    (r"greater_than", "expected a number above {gt:g}"),
    (r"greater_than_equal", "expected a number from {ge:g} on"),
    (r"less_than", "expected a number below {lt:g}"),
    (r"less_than_equal", "expected a number up to {le:g}"),
)
"""Kinds of pydantic's errors, and what they mean."""

_YAML_WORDS: Final = (
    (r"character '\\t'", "a tab; indent with spaces"),
    (r"character '(.)' that cannot start", "a value that begins with {0} needs quotes"),
    (r"flow sequence", "a list that begins with [ needs commas between its items and ] at its end"),
    (r"flow mapping", "what begins with {{ needs commas between its keys and }} at its end"),
    (r"quoted scalar|unknown escape", "a text in quotes that does not end, or has a wrong \\ in it"),
    (
        r"mapping values are not allowed",
        "a colon too many; quote values that hold one, and check the indentation",
    ),
    (r"block end|block mapping|block collection", "its indentation does not fit the lines above it"),
    (r"expected ':'", "a key without a colon and a space after it"),
    (r"unhashable", "a list or a mapping where a single key is expected"),
    (r"constructor for the tag", "a tag (!…) that is not supported; leave it out"),
    (r"single document", "a second document begins; keep one"),
    (r"special characters", "a character that cannot be seen; remove it"),
)
"""Parts of PyYAML's messages, and what they mean."""


def yaml_trouble(error: Exception) -> str:
    """Why a text is no YAML, with the line.

    Args:
        error: What PyYAML raised.
    """
    if isinstance(error, RecursionError):
        return "nested too deeply"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = " ".join(filter(None, (getattr(error, "context", ""), getattr(error, "problem", ""))))
    if isinstance(error, yaml.reader.ReaderError):
        said = error.reason
    where = "" if mark is None else f"line {mark.line + 1}: "
    for pattern, words in _YAML_WORDS:
        if found := re.search(pattern, said):
            return where + words.format(*found.groups())
    return f"{where}{said or 'not understood'}"


def key_lines(node: yaml.Node | None, place: Place = ()) -> Iterator[tuple[Place, int]]:
    """The lines of all keys and list items below a node.

    Args:
        node: Of PyYAML.
        place: Its own place.
    """
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, key.value if isinstance(key, yaml.ScalarNode) else "")
            yield inner, key.start_mark.line + 1
            yield from key_lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield (*place, position), value.start_mark.line + 1
            yield from key_lines(value, (*place, position))


def describe_validation_error(
    error: ValidationError, settings: type[BaseModel], *, lines: Lines | None = None
) -> str:
    """Every complaint in one line, without the values, which may be secrets.

    Args:
        error: Of pydantic.
        settings: The model that refused.
        lines: Where the keys of the file stand.
    """
    complaints, items = [], error.errors(include_url=False, include_input=False)
    misspelt = {_meant(tuple(item["loc"]), settings) for item in items if item["type"] == "extra_forbidden"}
    for item in items:
        place = tuple(item["loc"])
        if item["type"] == "missing" and place in misspelt:
            continue
        line = _line_of(place, lines or {})
        where = "" if line is None else f"line {line}: "
        name = ".".join(str(part) for part in place)
        complaints.append((line or 0, where + (f"{name}: " if name else "") + _words(item, settings)))
    return "; ".join(text for _, text in sorted(complaints, key=lambda each: each[0]))


def _line_of(place: Place, lines: Lines) -> int | None:
    """The line of a value, or of the nearest that is above it where it is missing."""
    for end in range(len(place), 0, -1):
        if (line := lines.get(place[:end])) is not None:
            return line
    return None


def _words(item: ErrorDetails, settings: type[BaseModel]) -> str:
    kind, place = item["type"], tuple(item["loc"])
    match kind:
        case "extra_forbidden":
            return f"unknown key; {_suggestion(place, settings)}"
        case "missing":
            return f"missing; add it: {place[-1]}: …"
        case "invalid_key":
            return "unknown key; keys must be text"
        case "value_error":
            return item["msg"].removeprefix("Value error, ")
    for pattern, words in _EXPECTED:
        if re.fullmatch(pattern, kind):
            return words.format(**item.get("ctx", {})).replace("'", "")
    return item["msg"].replace("Input should be", "expected")


def _suggestion(place: Place, settings: type[BaseModel]) -> str:
    """What to write instead of a key, as far as can be told."""
    if meant := _meant(place, settings):
        return f"did you mean {meant[-1]}?"
    wrong, model = str(place[-1]), _model_at(place[:-1], settings)
    for section in settings.model_fields:
        inner = _model_at((section,), settings)
        if inner is not None and wrong in inner.model_fields and inner is not model:
            return f"it belongs under {section}:"
    keys = ", ".join(model.model_fields) if model else ""
    return f"known here: {keys}" if keys else "check its spelling in docs/configuration.md"


def _meant(place: Place, settings: type[BaseModel]) -> Place | None:
    """The place of the key that was meant by one that is unknown."""
    wrong, model = str(place[-1]).lower().replace("-", "_"), _model_at(place[:-1], settings)
    keys = list(model.model_fields) if model else []
    near = [_OTHER_WORDS[wrong]] if _OTHER_WORDS.get(wrong) in keys else get_close_matches(wrong, keys, n=1)
    return (*place[:-1], near[0]) if near else None


def _model_at(place: Sequence[int | str], settings: type[BaseModel]) -> type[BaseModel] | None:
    """The settings that a place holds."""
    model: type[BaseModel] | None = settings
    for part in place:
        if isinstance(part, int):
            continue
        field = None if model is None else model.model_fields.get(part)
        model = None if field is None else _model_of(field.annotation)
    return model


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The settings in a type such as ``tuple[CameraSettings, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_of, get_args(annotation))), None)
