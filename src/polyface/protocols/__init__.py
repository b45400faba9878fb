"""Protocols: published ways to evaluate a model, which say what faces are compared with which, and with what figures.

A protocol is a class in a file of its own here, or under the entry point group ``polyface.protocols`` of somebody's
package; its options are those of its constructor. See :mod:`polyface.protocols.base` for what it must do.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from polyface.data.readers import READERS
from polyface.errors import PolyfaceError, nearest
from polyface.protocols.base import Protocol
from polyface.registry import Registry, lacks

__all__ = ["PROTOCOLS", "build", "settings"]

DEFAULT = "per-task"
PROTOCOLS = Registry(
    "protocol",
    group="polyface.protocols",
    folder="polyface.protocols",
    without=("base", "evaluation"),
    check=lambda part: lacks(part, "cases", "evaluate"),
)


def settings(given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """A protocol as a recipe names it → its name and options.

    It is named by itself, or by a data set's reader that says how the set is evaluated (its `protocol`, which therefore
    is among the settings of finished runs: with another one they are out of date).

    Raises:
        PolyfaceError: a name that is neither, or an option that the protocol does not have or refuses.
    """
    if given is None:
        return {"name": DEFAULT}
    if isinstance(given, Mapping):
        found = dict(given)
    elif given in PROTOCOLS or given not in READERS:
        found = {"name": given}
    elif (published := getattr(READERS.get(given), "protocol", None)) is not None:
        found = deepcopy(published)
    else:
        raise PolyfaceError(f"reader '{given}' has no protocol of its own; {nearest(given, PROTOCOLS.names())}")
    build(found)
    return found


def build(settings: Mapping[str, Any]) -> Protocol:
    """The protocol of a name and options."""
    options = dict(settings)
    name = str(options.pop("name", ""))
    made: Protocol = PROTOCOLS.make(name, options, where="evaluation.protocol", named="evaluation.protocol.name")
    return made
