"""A trained network's config with more beside it: all that it had is frozen and goes on answering."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polyface.errors import PolyfaceError

_NAMED = ("heads", "parts", "branches", "embeddings")


def grown(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a network (see `networks.build`) that has the trunk, parts, heads and embeddings of `old`, frozen
    and by the same names of tensors, and the parts, heads and embeddings of `new` after them.

    Raises:
        PolyfaceError: something of both has the same name.
    """
    taken = {name for key in _NAMED for name in old.get(key, {})}
    for key in _NAMED:
        if twice := [name for name in new.get(key, {}) if name in taken]:
            raise PolyfaceError(f"network.{key}.{twice[0]}: it has a '{twice[0]}' already; take another name")
    config = {**old, "trunk": {**old["trunk"], "frozen": True}}
    for key in ("branches", "parts"):
        frozen = {name: {**part, "frozen": True} for name, part in old.get(key, {}).items()}
        config[key] = frozen | new.get(key, {})
    config["heads"] = {name: _frozen_head(head) for name, head in old["heads"].items()} | new["heads"]
    config["embeddings"] = {**old.get("embeddings", {}), **new.get("embeddings", {})}
    config["cosine"] = [*old.get("cosine", ()), *new.get("cosine", ())]
    return {key: value for key, value in config.items() if value or key == "heads"}


def _frozen_head(head: int | Mapping[str, Any]) -> dict[str, Any]:
    given = head if isinstance(head, Mapping) else {"reads": ["trunk"], "outputs": head}
    return {**given, "frozen": True}
