"""What the project promises of itself as a whole: light imports, small files, nothing unsafe."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "polyface"
FILES = sorted(SOURCE.rglob("*.py"))
MOST_LINES = 450

UNSAFE_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
ENGINES = {
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "pytorch_lightning",
    "onnxruntime",
    "matplotlib",
    "scipy",
    "cv2",
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python(code: str, *arguments: str) -> str:
    """Standard output of `code` in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(module: str, *before: str) -> set[str]:
    """Top-level modules that `import module` loads, beyond what the modules in `before` have loaded already."""
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[2:]: importlib.import_module(name)\n"
        "known = set(sys.modules)\n"
        "importlib.import_module(sys.argv[1])\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - known}))"
    )
    return set(python(code, module, *before).split())


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of every absolute import, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


def flag(call: ast.Call, name: str) -> object:
    """The constant given to a keyword of a call; None where it is absent or computed."""
    values = [keyword.value for keyword in call.keywords if keyword.arg == name]
    return values[0].value if values and isinstance(values[0], ast.Constant) else None


def called(call: ast.Call) -> str:
    """`torch.load` for a call of torch.load(...)."""
    return ast.unparse(call.func) if isinstance(call.func, ast.Name | ast.Attribute) else ""


def unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and reason of everything that could run code from a file, or that swallows every error."""
    for line, name in imports(tree):
        if name.partition(".")[0] in UNSAFE_MODULES:
            yield line, f"imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except"
        if not isinstance(node, ast.Call):
            continue
        name = called(node)
        if name in {"eval", "exec", "builtins.eval", "builtins.exec"}:
            yield node.lineno, f"calls {name}"
        if name == "torch.load" and flag(node, "weights_only") is not True:
            yield node.lineno, "torch.load without weights_only=True"
        if flag(node, "weights_only") is False:
            yield node.lineno, "weights_only=False"
        if flag(node, "allow_pickle") is True:
            yield node.lineno, "allow_pickle=True"
        if name in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}:
            yield node.lineno, f"{name} instead of yaml.safe_load"


def test_there_is_a_package_to_look_at() -> None:
    assert FILES
    assert (SOURCE / "py.typed").is_file()


@pytest.mark.parametrize("module", ["polyface", "polyface.cli", "polyface.schema", "polyface.errors"])
def test_import_is_light(module: str) -> None:
    assert not loaded_by(module) & ENGINES


def test_command_line_answers_help() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from polyface.cli import main; main()", "--help"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_the_names_of_the_package_are_there_and_wait_until_asked_for() -> None:
    import polyface

    for name in polyface.__all__:
        assert getattr(polyface, name) is not None
    assert polyface.PolyfaceError.__module__ == "polyface.errors"
    assert polyface.Gallery.__module__.startswith("polyface.gallery")
    assert "polyface.gallery" not in python("import sys, polyface; print(*sys.modules)").split()


# Modules of packages that are called otherwise; of the pytest plugins, the option that needs them.
MODULES = {
    "dlib-bin": "dlib",
    "faiss-cpu": "faiss",
    "pytest-timeout": "timeout",
    "pytest-xdist": "dist",
    "scikit-learn": "sklearn",
}


def used(tree: ast.AST) -> set[str]:
    """Modules that a file imports, and words that it may look for by name (`find_spec`, `importorskip`)."""
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {name.partition(".")[0] for name in words | {name for _, name in imports(tree)}}


def test_an_extra_is_offered_only_where_something_imports_it() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = content["project"]["optional-dependencies"]
    here = [*FILES, *(path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))]
    known = {name.lstrip("-") for name in content["tool"]["pytest"]["ini_options"]["addopts"]}
    known |= {"timeout"} & content["tool"]["pytest"]["ini_options"].keys()
    known = known.union(*(used(ast.parse(path.read_text(encoding="utf-8"))) for path in here))
    for extra in extras.keys() - {"dev", "docs"}:  # tools that are run
        names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in extras[extra]]
        idle = [name for name in names if MODULES.get(name, name.replace("-", "_")) not in known | {"polyface"}]
        assert not idle, f"extra {extra}: nothing imports {idle[0]}"


def opens_text(call: ast.Call) -> bool:
    """Whether a call reads or writes a text file in the encoding of whatever locale there is."""
    mode = next((each.value for each in call.args[1:2] if isinstance(each, ast.Constant)), "r")
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    text = method in ("read_text", "write_text")
    text |= isinstance(call.func, ast.Name) and call.func.id == "open" and "b" not in str(mode)
    return text and "encoding" not in {word.arg for word in call.keywords}


def test_text_files_are_utf8_whatever_the_locale() -> None:
    sample = ast.parse("p.read_text(); p.write_text(x, encoding='utf-8'); open(p); open(p, 'rb'); open(p, 'w')")
    assert [opens_text(n) for n in ast.walk(sample) if isinstance(n, ast.Call)] == [True, False, True, False, True]
    calls = (
        (path, n) for path in FILES for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)
    )
    assert [f"{relative(path)}:{call.lineno}" for path, call in calls if opens_text(call)] == []


def test_the_document_of_the_architecture_tells_the_contract() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (c for c in content["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    layers = [re.findall(r"\w+", layer) for layer in contract["layers"] if not layer.startswith("(")]
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("| room |")[2]
    told = [
        room
        for line in text.splitlines()
        if line.startswith("| `")
        for room in re.findall(r"`(\w+)`", line.split("|")[1])
    ]
    assert told == [room for layer in layers for room in layer]


def test_inference_needs_no_training_library() -> None:
    assert not loaded_by("polyface.inference") & {"lightning", "pytorch_lightning", "torchmetrics", "timm", "cv2"}


STANDALONE = {
    "weighting": ({"torch", "numpy", "scipy"}, ("polyface.weighting", "polyface.errors", "polyface.registry")),
    "metrics": ({"numpy"}, ("polyface.metrics", "polyface.errors")),
}


@pytest.mark.parametrize("room", STANDALONE)
def test_rooms_that_stand_alone_import_little(room: str) -> None:
    others, own = STANDALONE[room]
    allowed = {*others, *sys.stdlib_module_names}
    strangers = [
        f"{relative(path)}:{line}: {name}"
        for path in sorted((SOURCE / room).rglob("*.py"))
        for line, name in imports(ast.parse(path.read_text(encoding="utf-8")))
        if name.partition(".")[0] not in allowed and not name.startswith(own)
    ]
    assert not strangers


def test_networks_import_only_torch() -> None:
    """And where they are named: timm, and what reads published weights."""
    named = {
        "timm_trunk": {"timm"},
        "depthwise": {"timm"},
        "imagenet": {"timm"},
        "files": {"safetensors"},
        "dlib": {"numpy"},
    }
    allowed = {"torch", *sys.stdlib_module_names}
    ours = ("polyface.networks", "polyface.errors", "polyface.registry")
    strangers = [
        f"{relative(path)}:{line}: {name}"
        for path in sorted((SOURCE / "networks").rglob("*.py"))
        for line, name in imports(ast.parse(path.read_text(encoding="utf-8")))
        if name.partition(".")[0] not in allowed | named.get(path.stem, set())
        if name != "polyface" and not name.startswith(ours)
    ]
    assert not strangers
    assert not loaded_by("polyface.networks", "torch") & {"timm", "safetensors", "pyarrow", "pydantic"}


def test_weighting_loads_no_other_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in project["dependencies"]}
    modules = {"pillow": "PIL", "pyyaml": "yaml"}
    others = {modules.get(name, name.replace("-", "_")) for name in named} - {"torch", "numpy", "scipy"}
    # torch itself may load some of them, which is not the weighting's doing
    assert not loaded_by("polyface.weighting", "torch", "numpy", "scipy.optimize") & others


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_file_is_one_room(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{relative(path)} has {lines} lines: two rooms in one"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_file_is_safe(path: Path) -> None:
    found = [f"{relative(path)}:{line}: {reason}" for line, reason in unsafe(ast.parse(path.read_text("utf-8")))]
    assert not found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "def f():\n    from pickle import loads",
        "eval('1')",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "Learner.load_from_checkpoint(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader)",
        "try:\n    f()\nexcept:\n    pass",
    ],
)
def test_unsafe_code_is_seen(code: str) -> None:
    assert list(unsafe(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "network.eval()",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)",
        "'eval('",
    ],
)
def test_safe_code_is_not_accused(code: str) -> None:
    assert not list(unsafe(ast.parse(code)))
