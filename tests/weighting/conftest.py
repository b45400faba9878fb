"""Lets the tests of this folder import the toy network beside them, as its script of two processes does."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
