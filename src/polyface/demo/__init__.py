"""The demonstration: what Polyface does, in two minutes, without a data set."""

from polyface.demo.demonstrate import demonstrate

__all__ = ["demonstrate"]
