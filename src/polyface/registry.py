"""Parts by name: every room that has parts of a kind has one registry of them.

A part is a class or a function. Its name comes from one of three places: a file of Polyface's own, an entry point of an
installed package, or `polyface.register` in a notebook. Nothing is imported before it is asked for, so that a broken
package stops only those who name its part.
"""

from __future__ import annotations

import ast
import inspect
import json
import multiprocessing
import pkgutil
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from polyface.errors import PolyfaceError, nearest, short

Check = Callable[[Any], str | None]
"""What is wrong with a part that somebody gives ("it has no forward"); None if nothing is."""


class Registry:
    """The parts of one kind.

    kind: what a part is called in sentences ("task"). group: of entry points. folder: a package in which each file is
    a part, whose name is the file's (`face_resnet.py` → "face-resnet") and which is the class or function that has the
    file's name, letter case and underscores aside, with or without the kind at its end (`FaceResNet`,
    `LandmarksTask`); files in `without`, and those that begin with an underscore, are none. built_in: other parts,
    name → "module:Name", where a file holds several or their name is not the file's. check: see `Check`.
    """

    def __init__(
        self,
        kind: str,
        *,
        group: str,
        folder: str = "",
        without: Collection[str] = (),
        built_in: Mapping[str, str] | None = None,
        check: Check = lambda part: None,
    ) -> None:
        self.kind, self.group, self.folder = kind, group, folder
        self._without, self._check = frozenset(without), check
        self._built_in = dict(built_in or {})
        self._added: dict[str, Any] = {}

    def names(self) -> list[str]:
        """The names of all parts, Polyface's own first; imports none of them."""
        return list(dict.fromkeys([*self._own(), *self._points(), *self._added]))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._added or name in self._own() or name in self._points())

    def get(self, name: str, where: str = "") -> Any:
        """The part of a name. where: the key that names it, for the error ("network.trunk.name").

        Raises:
            PolyfaceError: an unknown name (with the nearest one), or a part that cannot be imported or is none.
        """
        if not isinstance(name, str):
            raise PolyfaceError(f"{where or self.kind} is {short(repr(name))}; expected a name")
        if name in self._added:
            return self._added[name]
        if name in (own := self._own()):
            return self._from_file(name, own[name])
        if name in (points := self._points()):  # asked last: it looks through all installed packages
            return self._from_point(points[name])
        hint = nearest(name, self.names())
        if multiprocessing.parent_process() is not None:
            hint += "; a part that was registered in a notebook is not known to worker processes: install it"
        raise PolyfaceError(f"{where} is '{name}'; {hint}" if where else f"unknown {self.kind} '{name}': {hint}")

    def add(self, name: str, part: Any) -> None:
        """Let `name` mean `part` in this process, also in place of a part that is known by that name."""
        self._added[name] = self._checked(part, f"{self.kind} '{name}'")

    def remove(self, name: str) -> None:
        """Take back what `add` did."""
        self._added.pop(name, None)

    def about(self, name: str) -> str:
        """What a part says of itself in one line: its docstring's first. Of one that cannot be loaded: why."""
        try:
            part = self.get(name)
        except PolyfaceError as error:
            return f"({error})"
        own = getattr(part, "about", None)
        text = own if isinstance(own, str) else inspect.getdoc(part) or ""
        return text.strip().split("\n\n")[0].replace("\n", " ")

    def origin(self, name: str) -> str:
        """Where a part comes from: "polyface", an entry point's package, or "registered here"."""
        if name in self._added:
            return "registered here"
        point = None if name in self._own() else self._points().get(name)
        return "polyface" if point is None else str(point.dist.name if point.dist else point.value)

    def make(
        self,
        name: str,
        options: Mapping[str, Any],
        *given: Any,
        where: str,
        named: str = "",
        beside: Collection[str] = (),
    ) -> Any:
        """Call a part with what is `given` and its options. where: the key of the options; named: that of the name;
        beside: other keys that may stand there, which an unknown option may be a slip for.

        Raises:
            PolyfaceError: as `get`; an option that the part does not have, with the nearest one; a value it refuses.
        """
        part = self.get(name, named or f"{where}.{self.kind}")
        check_options(part, options, f"{where} ({name})", len(given), beside)
        try:
            return part(*given, **options)
        except (AttributeError, PolyfaceError, TypeError, ValueError) as error:
            raise PolyfaceError(f"{where} ({name}): {error}") from error

    # ------------------------------------------------------------------------------------------------ where they are

    def _own(self) -> dict[str, str]:
        """Polyface's own parts: name → "module:Name", the name empty where the file's says it."""
        if not self.folder:
            return self._built_in
        spec = find_spec(self.folder)
        places = list(spec.submodule_search_locations or ()) if spec else []
        files = [module.name for module in pkgutil.iter_modules(places)]
        listed = {place.partition(":")[0] for place in self._built_in.values()}
        found = {
            file.replace("_", "-"): f"{self.folder}.{file}:"
            for file in files
            if not file.startswith("_") and file not in self._without and f"{self.folder}.{file}" not in listed
        }
        return self._built_in | found

    def _points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def _from_file(self, name: str, place: str) -> Any:
        module_name, _, attribute = place.partition(":")
        module = import_module(module_name)
        if attribute:
            return getattr(module, attribute)
        plain = module_name.rpartition(".")[2].replace("_", "")
        wanted = (plain, plain + self.kind)
        for key, value in vars(module).items():
            if key.replace("_", "").lower() in wanted and getattr(value, "__module__", "") == module_name:
                return self._checked(value, f"{self.kind} '{name}' ({module_name})")
        raise PolyfaceError(f"{module.__file__}: expected a class or function called {name} or {name}{self.kind}")

    def _from_point(self, point: EntryPoint) -> Any:
        where = f"{self.kind} '{point.name}' (entry point {point.value})"
        try:
            part = self._loaded(point)
        except Exception as error:  # whatever someone else's package raises when it is imported
            raise PolyfaceError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
        return self._checked(part, where)

    def _loaded(self, point: EntryPoint) -> Any:
        return point.load()

    def _checked(self, part: Any, where: str) -> Any:
        if wrong := self._check(part):
            raise PolyfaceError(f"{where} is no {self.kind}: {wrong}")
        return part


class Folders(Registry):
    """Parts that are folders of files in place of classes: packages that need hold no code. `get` gives their path.

    file: what every one of them holds ("recipe.yaml"); a package without it is none. An entry point names a package.
    """

    def __init__(
        self, kind: str, *, group: str, file: str, folder: str = "", built_in: Mapping[str, str] | None = None
    ) -> None:
        def check(part: Any) -> str | None:
            holds = isinstance(part, Path) and (part / file).is_file()
            return None if holds else f"it is no folder that holds {file}"

        super().__init__(kind, group=group, folder=folder, built_in=built_in, check=check)

    def about(self, name: str) -> str:
        """The first line of the docstring in a folder's `__init__.py`, which is not run for that."""
        code = self.get(name) / "__init__.py"
        text = ast.get_docstring(ast.parse(code.read_text(encoding="utf-8"))) if code.is_file() else None
        return (text or "").partition("\n\n")[0].replace("\n", " ")

    def _from_file(self, name: str, place: str) -> Any:
        return self._checked(_path_of(place.removesuffix(":")), f"{self.kind} '{name}' ({place})")

    def _loaded(self, point: EntryPoint) -> Any:
        return _path_of(point.value)


def _path_of(package: str) -> Path | None:
    spec = find_spec(package)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def lacks(part: Any, *names: str) -> str | None:
    """What a `Check` says of a part that must have these attributes."""
    missing = [name for name in names if not hasattr(part, name)]
    return f"it has no {', '.join(missing)}" if missing else None


def options_of(part: Any, given: int = 0) -> list[str]:
    """The names of a part's options: its parameters but the first `given`, which whoever makes it fills in."""
    parameters = list(inspect.signature(part).parameters.values())[given:]
    return [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]


def check_options(
    part: Any, options: Mapping[str, Any], where: str, given: int = 0, beside: Collection[str] = ()
) -> None:
    """Refuse options that a part does not have, with the nearest that it has, or that may stand `beside` them; and
    plain values that are of another type than the part declares."""
    parameters = _parameters(part)
    known = options_of(part, given)
    unknown = [name for name in options if name not in known]
    if unknown and not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        raise PolyfaceError(f"{where}: unknown option '{unknown[0]}'; {nearest(unknown[0], [*known, *beside])}")
    for name in (name for name in options if name in known):
        if wrong := _unlike(parameters[name].annotation, options[name]):
            raise PolyfaceError(f"{where}: {name} is {short(repr(options[name]))}; {wrong}")


def _parameters(part: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(part, eval_str=True).parameters
    except NameError:  # a type that is imported for type checkers alone
        return inspect.signature(part).parameters


def _unlike(declared: Any, value: Any) -> str | None:
    """What pydantic has against a value of JSON where a type is declared; None of other values and unknown types."""
    from pydantic import PydanticUserError, TypeAdapter, ValidationError

    if declared is inspect.Parameter.empty or isinstance(declared, str):
        return None
    try:
        TypeAdapter(declared).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        return message[:1].lower() + message[1:]
    except (PydanticUserError, TypeError, ValueError):  # a class of somebody's own, a value that is no JSON
        return None
    return None


def installed() -> str:
    """Polyface's version; "unknown" of a checkout that is on the path but not installed."""
    try:
        return version("polyface")
    except PackageNotFoundError:
        return "unknown"
