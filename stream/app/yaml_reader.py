"""A configuration file before it is checked: strict YAML, and ``${NAME}`` from the environment."""

from __future__ import annotations

import codecs
import re
from collections.abc import Hashable, Mapping
from typing import Any

import yaml

from engine.errors import ConfigError
from stream.app.config_errors import Place, key_lines, yaml_trouble
from stream.common.uris import fill_references


def parse_tree(raw: bytes | str, *, where: str) -> dict[Any, Any]:
    """Read YAML into dicts, lists and values.

    Args:
        raw: The text.
        where: Name used in errors.

    Returns:
        Its keys; none where there is nothing.

    Raises:
        ConfigError: It is not YAML, or holds no keys.
    """
    text = _decoded(raw, where) if isinstance(raw, bytes) else raw
    try:
        tree = yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader made stricter
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{where}: not valid YAML: {yaml_trouble(exc)}") from exc
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        got = "a list" if isinstance(tree, list) else "a single value"
        raise ConfigError(f"{where}: line 1: expected keys such as 'cameras:', got {got}")
    return tree


def find_lines(raw: bytes | str) -> dict[Place, int]:
    """On which line each key and list item of a text stands that ``parse_tree`` has read.

    Args:
        raw: The text.

    Returns:
        Line numbers, from 1.
    """
    return dict(key_lines(yaml.compose(raw, Loader=_PlainLoader)))


def _decoded(raw: bytes, where: str) -> str:
    encoding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as exc:
        line = raw[: exc.start].count(b"\n") + 1
        raise ConfigError(f"{where}: line {line}: is not UTF-8; save the file as UTF-8") from exc


class _PlainLoader(yaml.SafeLoader):
    """YAML without what a configuration does not need and an attacker does: no aliases, no repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias = self.get_event()  # type: ignore[no-untyped-call]  # types-PyYAML leaves it untyped
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not supported; write the value out", alias.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} appears twice", key_node.start_mark
                )
            seen.add(key) if isinstance(key, Hashable) else None
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, OverflowError) as exc:
            problem = "looks like a number or a date, but is not; put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from exc


_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def expand_address(address: str, environment: Mapping[str, str]) -> str:
    """An address of the command line with the environment's values in place of ``${NAME}``.

    Args:
        address: Of a camera, a sink, a source of events or a registry; a path.
        environment: Values by name.

    Raises:
        ConfigError: A name is not set, or is none.
    """
    return str(expand_environment(address, environment, "address"))


def expand_environment(node: Any, environment: Mapping[str, str], where: str) -> Any:
    """Put the environment's values in place of ``${NAME}`` in every string of a tree.

    Within addresses as ``stream.common.uris.fill_references`` does: in a login a value may hold any
    character.

    Args:
        node: A string, or dicts and lists of strings and other values, which are left alone.
        environment: Values by name.
        where: Name used in errors.

    Raises:
        ConfigError: A name is not set, or is none.
    """

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{where}: '${{{name}}}' does not name an environment variable")
        if name not in environment:
            raise ConfigError(f"{where}: environment variable {name} is not set; set it: export {name}=…")
        if any("\ud800" <= char <= "\udfff" for char in environment[name]):
            raise ConfigError(f"{where}: environment variable {name} is not valid UTF-8; set it again")
        return environment[name]

    if isinstance(node, str):
        return fill_references(node, lambda reference: _REFERENCE.sub(value_of, reference))
    if isinstance(node, dict):
        return {key: expand_environment(value, environment, where) for key, value in node.items()}
    if isinstance(node, list):
        return [expand_environment(value, environment, where) for value in node]
    return node
