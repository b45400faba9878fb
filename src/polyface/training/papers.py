"""Recipes by name: the folders of papers, Polyface's own and those of installed packages.

A paper's folder is a package that holds `recipe.yaml`. It needs no code; what else it may hold is told by
`polyface.papers`, a room above, of which only the places of files are known here. ::

    [project.entry-points."polyface.papers"]
    mine = "my_package.papers.mine"
"""

from polyface.registry import Folders

RECIPE = "recipe.yaml"
PAPERS = Folders(
    "recipe",
    group="polyface.papers",
    file=RECIPE,
    folder="polyface.papers",
    built_in={"synthetic": "polyface.demo"},
)
