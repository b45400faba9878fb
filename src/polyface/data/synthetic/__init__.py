"""Synthetic faces: a small parametric renderer of which everything is known."""

from polyface.data.synthetic.faces import ILLUMINATIONS, SyntheticFaces, records, render

__all__ = ["ILLUMINATIONS", "SyntheticFaces", "records", "render"]
