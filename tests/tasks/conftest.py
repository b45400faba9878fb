"""The small detector and pictures of `tests/toys.py`."""

from ..toys import picture, told

__all__ = ["picture", "told"]
