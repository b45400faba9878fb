"""Trunk → shared features → heads."""

from polyface.networks.network import FaceNetwork, FaceOutput, build

__all__ = ["FaceNetwork", "FaceOutput", "build"]
