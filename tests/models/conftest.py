"""The small models, detector and pictures of `tests/toys.py`, and small recipes."""

from ..toys import five, make, picture, saved, sixty_eight, told
from ..training.conftest import toy

__all__ = ["five", "make", "picture", "saved", "sixty_eight", "told", "toy"]
