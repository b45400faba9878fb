"""Parts of a network by kind, one file each: what stands between a trunk's maps and the heads."""

from polyface.registry import Registry, lacks

PARTS = Registry(
    "part", group="polyface.parts", folder="polyface.networks.parts", check=lambda part: lacks(part, "__call__")
)
"""A part is an `nn.Module`, built as `Kind(reads, **options)` from the `Shape`s of what it reads, in that order.

`forward(reads)` takes these tensors and gives its output, or {"": output, "block1": an inner map, …}. `maps` declares
the shape of each by the same names, since heads and other parts are built on them. `any_size = False`, in the class:
its maps must be of the size that the network was built for (as with a fully connected layer on a whole map), and their
shapes say that `side`. `spelled(reads, options)`, a static method: the names that it reads, where one in the recipe
stands for several, as a whole column does for the outputs of its blocks.
"""
