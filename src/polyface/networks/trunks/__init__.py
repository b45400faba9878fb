"""Trunks by name, one file each: what all tasks of a network share."""

from polyface.registry import Registry, lacks

TRUNKS = Registry(
    "trunk",
    group="polyface.trunks",
    folder="polyface.networks.trunks",
    built_in={"timm": "polyface.networks.trunks.timm_trunk:TimmTrunk"},  # a file timm.py would hide the library
    check=lambda part: lacks(part, "__call__"),
)
"""A trunk is an `nn.Module` that maps normalised images [B, C, S, S] to maps by name, "shared" among them.

`size` and `in_channels` are S and C; `maps` declares the `Shape` of every map by its name, "shared" that of the map
[B, D, h, w] or vector [B, D] that is read as "trunk". `any_size = True`: it also takes pictures of other sides than
`size`, where it is fully convolutional up to a pooled output.
"""
