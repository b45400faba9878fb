"""The small models of `tests/toys.py`, and small recipes."""

from ..toys import five, make, saved, sixty_eight, told
from ..training.conftest import toy

__all__ = ["five", "make", "saved", "sixty_eight", "told", "toy"]
