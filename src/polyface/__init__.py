"""Polyface: one network, many questions about a face: train, compare, explain and run multi-task face networks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyface.errors import PolyfaceError as PolyfaceError
    from polyface.gallery import Gallery as Gallery
    from polyface.inference.analyzer import Analyzer as Analyzer
    from polyface.inference.analyzer import analyze as analyze
    from polyface.models.bundle import load_bundle as load
    from polyface.parts import register as register

    __version__: str

__all__ = ["Analyzer", "Gallery", "PolyfaceError", "analyze", "load", "register", "__version__"]

# Loaded when asked for: `import polyface` alone takes milliseconds.
_HOMES = {
    "Analyzer": ("polyface.inference.analyzer", "Analyzer"),
    "Gallery": ("polyface.gallery", "Gallery"),
    "PolyfaceError": ("polyface.errors", "PolyfaceError"),
    "analyze": ("polyface.inference.analyzer", "analyze"),
    "load": ("polyface.models.bundle", "load_bundle"),
    "register": ("polyface.parts", "register"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from polyface.registry import installed

        return installed()
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HOMES, "__version__"]
