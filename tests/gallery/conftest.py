"""The small models, detector and pictures of `tests/toys.py`."""

from ..toys import five, make, picture, saved, sixty_eight, told

__all__ = ["five", "make", "picture", "saved", "sixty_eight", "told"]
