"""Trunk → parts → heads and embeddings: needs torch alone (and timm where a trunk of it is named)."""

from polyface.networks.network import FaceNetwork, FaceOutput, build

__all__ = ["FaceNetwork", "FaceOutput", "build"]
