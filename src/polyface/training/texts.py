"""YAML as people write it: one plain document, in which nothing is ambiguous and nothing grows."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from polyface.errors import PolyfaceError, short
from polyface.files import read_bytes

_MOST_BYTES = 2**24
_MOST_VALUES = 100_000
"""Keys and values of a document in which every alias stands for what it repeats. The longest recipe here has 1,100."""
_PLAIN = ("str", "int", "float", "bool", "null", "map", "seq")
_TAG = "tag:yaml.org,2002:"
_ODD_NUMBER = re.compile(r"[-+]?0[0-7_]+$|.*:")
"""Numbers of YAML 1.1 that nobody means: 010 is 8, and 1:30 is 90."""
_MERGE = f"{_TAG}merge"


def read_yaml_file(path: Path) -> Any:
    """What a YAML file holds, as `read_yaml`.

    Raises:
        PolyfaceError: it is no regular file of text, or no plain YAML.
    """
    if not path.exists():
        raise PolyfaceError(f"{path}: no such file")
    if not path.is_file():  # a pipe would be read for ever
        raise PolyfaceError(f"{path}: not a regular file")
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise PolyfaceError(f"{path}: {size:,} bytes are too many for a file of settings")
    try:
        return read_yaml(read_bytes(path).decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise PolyfaceError(f"{path}: not a readable text file (its bytes from {error.start} are not UTF-8)") from error


def read_yaml(text: str, where: str) -> Any:
    """What YAML says: mappings with words as keys, lists, words, finite numbers, true, false and null. where: what an
    error calls it.

    Raises:
        PolyfaceError: it is not YAML, has a key twice, a value of another kind (a date, a tag), a number that is not
            finite, or aliases that stand for more than a recipe can hold.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Check(loader, where).visit(node, "")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise PolyfaceError(f"{where}: not YAML ({place}{short(error.problem)})") from error
    except (yaml.YAMLError, ValueError) as error:  # a character that YAML has not, a number of 5,000 digits
        raise PolyfaceError(f"{where}: not YAML ({short(error)})") from error
    except RecursionError:
        raise PolyfaceError(f"{where}: not YAML that can be read: its lists and mappings are too deep") from None


class _Check:
    """Walks a document before anything is made of it; an alias is walked each time that it is named."""

    def __init__(self, loader: yaml.SafeLoader, where: str) -> None:
        self.loader, self.where = loader, where
        self.values = 0
        self.within: list[yaml.Node] = []

    def visit(self, node: yaml.Node, key: str) -> None:
        self.values += 1
        if self.values > _MOST_VALUES:
            self._refuse(node, key, f"with all aliases written out it has more than {_MOST_VALUES:,} values")
        if any(node is outer for outer in self.within):
            self._refuse(node, key, "an alias stands for what it is part of")
        if (kind := node.tag.removeprefix(_TAG)) not in _PLAIN:
            self._refuse(node, key, f"{short(kind)} is no plain value of YAML; put a date or a word in quotes")
        if kind in ("int", "float") and _ODD_NUMBER.match(node.value):
            meant = short(self.loader.construct_object(node))
            self._refuse(node, key, f"{short(node.value)} means {meant}; write that, or put it in quotes")
        self.within.append(node)
        if isinstance(node, yaml.MappingNode):
            self._mapping(node, key)
        elif isinstance(node, yaml.SequenceNode):
            for place, value in enumerate(node.value):
                self.visit(value, _below(key, place))
        elif kind == "float" and not math.isfinite(self.loader.construct_object(node)):
            self._refuse(node, key, f"{node.value} is not a finite number")
        self.within.pop()

    def _mapping(self, node: yaml.MappingNode, key: str) -> None:
        seen: set[str] = set()
        for name, value in node.value:
            merged = name.tag == _MERGE
            if not merged and name.tag != f"{_TAG}str":
                shown = short(name.value) if isinstance(name, yaml.ScalarNode) else "of several values"
                self._refuse(name, key, f"the key {shown} is not a word; put it in quotes")
            if name.value in seen:
                self._refuse(name, _below(key, name.value), "the key is there twice; remove one")
            seen.add(name.value)
            self.visit(value, key if merged else _below(key, name.value))

    def _refuse(self, node: yaml.Node, key: str, why: str) -> None:
        line = f" (line {node.start_mark.line + 1})" if key else ""
        raise PolyfaceError(f"{self.where}: {short(key)}{line}: {why}" if key else f"{self.where}: {why}")


def _below(key: str, part: str | int) -> str:
    return f"{key}.{part}" if key else str(part)
