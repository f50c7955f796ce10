"""The arrows of the layout: who may import whom, read from the files and not by importing."""

import ast
import importlib
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import robust_tf as rt
from robust_tf import evaluation, notebook, perturbations

ROOT = Path(__file__).parents[1]
# In the order in which an image meets them: a package may import what is above it. Those of
# one line do not import each other.
ORDER = (
    ("errors", "faces", "files", "machine", "progress", "seeds", "settings", "xla"),
    ("data",),
    ("perturbations",),
    ("sensors",),
    ("layers",),
    ("models",),
    ("training",),
    ("saved_models",),
    ("evaluation",),
    ("results",),
    ("runs",),
    ("executors", "studies"),
    ("notebook", "paper"),
)
GROUND = ORDER[0]
LEVELS = {package: level for level, packages in enumerate(ORDER) for package in packages}
PACKAGES = [package for package in LEVELS if package not in GROUND]
# Libraries that are known in one place only.
PLACES = {"absl": "pipelines", "fsspec": "robust_tf.executors", "ray": "robust_tf.executors"}
MOST_LINES = 450


def modules(root: Path) -> dict[str, Path]:
    """The modules of the library and the pipelines, by name; a package's is its face."""
    paths = [path for top in ("robust_tf", "pipelines") for path in (root / top).rglob("*.py")]
    names = (path.relative_to(root).with_suffix("").parts for path in paths)
    return {
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts): path
        for parts, path in zip(names, paths)
    }


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """What a file imports, wherever in it: names of modules, of other libraries too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, f"{path}: a relative import"
            parts = {f"{node.module}.{name.name}" for name in node.names}
            yield from parts & known.keys()
            if node.module == "robust_tf":  # its lazy names are of packages further down
                yield from parts
            elif parts - known.keys():
                yield node.module


def arrows(root: Path) -> dict[str, set[str]]:
    """From each module to the modules that it imports. `robust_tf` itself is lazy, so has none."""
    known = modules(root)
    return {
        name: set(imports(path, known)) if name != "robust_tf" else set()
        for name, path in known.items()
    }


def package_of(module: str) -> str | None:
    """The part of the library that a module belongs to: "errors", "data" and so on."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if top == "robust_tf" and rest else None


def back_arrows(found: dict[str, set[str]]) -> list[str]:
    """Imports between packages that the order forbids."""
    return sorted(
        f"{importer} imports {imported}"
        for importer, targets in found.items()
        for imported in targets
        if (source := package_of(importer)) and (target := package_of(imported))
        if source != target and not is_allowed(source, target)
    )


def is_allowed(source: str, target: str) -> bool:
    """Whether a package may import another; the ground is one package."""
    return LEVELS.get(target, len(ORDER)) < LEVELS[source] or {source, target} <= set(GROUND)


def misplaced(found: dict[str, set[str]]) -> list[str]:
    """Imports outside their place: of libraries, and of pipelines from the library."""

    def is_misplaced(importer: str, imported: str) -> bool:
        top = imported.partition(".")[0]
        if top in PLACES:
            return not f"{importer}.".startswith(f"{PLACES[top]}.")
        return top == "pipelines" and package_of(importer) is not None

    return sorted(
        f"{importer} imports {imported}"
        for importer, targets in found.items()
        for imported in targets
        if is_misplaced(importer, imported)
    )


def cycles(found: dict[str, set[str]]) -> list[str]:
    """Modules of the library that import themselves by way of others: the shortest such ways."""

    def way(start: str) -> list[str] | None:
        ways, seen = [[start]], {start}
        for path in ways:  # grows meanwhile: breadth first
            for following in sorted(filter(package_of, found.get(path[-1], ()))):
                if following == start:
                    return path
                if following not in seen:
                    seen.add(following)
                    ways.append([*path, following])
        return None

    ways = [way(module) for module in found if package_of(module)]
    return sorted(" > ".join([*path, path[0]]) for path in ways if path and path[0] == min(path))


def offered(face: Path) -> tuple[str | None, dict[str, str], list[str] | None]:
    """A face's docstring, the places of the names that type checkers see, and its `__all__`."""
    tree = ast.parse(face.read_text())
    places: dict[str, str] = {}
    listed = None
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and package_of(node.module) not in (None, *GROUND):
            places |= {name.name: node.module for name in node.names}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            places |= {name.name: one.module for one in node.body for name in one.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = ast.literal_eval(node.value)
    return ast.get_docstring(tree), places, listed


def test_every_package_has_its_place_in_the_order():
    assert {package_of(module) for module in modules(ROOT)} == {None, *LEVELS}


def test_no_arrow_points_back():
    wrong = back_arrows(arrows(ROOT))
    assert not wrong, "\n".join(wrong)


def test_the_ground_and_the_packages_have_no_cycles():
    wrong = cycles(arrows(ROOT))
    assert not wrong, "\n".join(wrong)


def test_each_library_and_flag_is_known_in_one_place():
    wrong = misplaced(arrows(ROOT))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_a_face(package):
    docstring, places, listed = offered(ROOT / "robust_tf" / package / "__init__.py")
    assert docstring, "no docstring"
    assert listed is not None, "no __all__"
    assert sorted(listed) == sorted(places)
    assert_hands_out(importlib.import_module(f"robust_tf.{package}"), places)


def assert_hands_out(face: types.ModuleType, places: dict[str, str]) -> None:
    """A face's names are what type checkers take them for, and nothing else is handed out."""
    for name, place in places.items():
        assert getattr(face, name) is getattr(importlib.import_module(place), name)
        assert not (ROOT / place.replace(".", "/") / f"{name}.py").exists() or (
            getattr(face, name) is sys.modules[f"{place}.{name}"]
        ), f"{name} is a module of {face.__name__}, too"
    assert set(places) <= set(dir(face))
    with pytest.raises(AttributeError, match=f"module '{face.__name__}' has no attribute 'no'"):
        face.no  # noqa: B018


@pytest.mark.parametrize("ground", GROUND)
def test_the_ground_is_of_single_files(ground):
    assert ast.get_docstring(ast.parse((ROOT / "robust_tf" / f"{ground}.py").read_text()))


def test_no_file_is_long():
    lines = {name: len(path.read_text().splitlines()) for name, path in modules(ROOT).items()}
    long = {name: count for name, count in lines.items() if count > MOST_LINES}
    assert not long, long


def test_wrong_arrows_are_found(tmp_path):
    files = {
        "robust_tf/__init__.py": "from robust_tf.data import load",
        "robust_tf/errors.py": "import robust_tf.xla",
        "robust_tf/xla.py": "def late():\n    from robust_tf import errors",
        "robust_tf/data/__init__.py": "if TYPE_CHECKING:\n"
        "    from robust_tf.data.tfds import load\n__all__ = []",
        "robust_tf/data/tfds.py": "from robust_tf import models, xla\nimport numpy as np",
        "robust_tf/models/__init__.py": "from robust_tf.data import load\nimport ray.util",
        "robust_tf/runs/__init__.py": "import absl.flags, fsspec\nfrom pipelines import run, app",
        "robust_tf/executors/__init__.py": "from robust_tf.studies import one\nimport ray",
        "robust_tf/studies/__init__.py": "from robust_tf import paper, perturb",
        "robust_tf/paper/__init__.py": '"""Paper."""\nfrom robust_tf.runs import train',
        "pipelines/run.py": "import absl.app, ray\nfrom robust_tf import paper, perturb",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = arrows(tmp_path)
    assert back_arrows(found) == [
        "robust_tf.data.tfds imports robust_tf.models",
        "robust_tf.executors imports robust_tf.studies",
        "robust_tf.studies imports robust_tf.paper",
        "robust_tf.studies imports robust_tf.perturb",
    ]
    assert misplaced(found) == [
        "pipelines.run imports ray",
        "robust_tf.models imports ray.util",
        "robust_tf.runs imports absl.flags",
        "robust_tf.runs imports fsspec",
        "robust_tf.runs imports pipelines",
        "robust_tf.runs imports pipelines.run",
    ]
    assert cycles(found) == [
        "robust_tf.data > robust_tf.data.tfds > robust_tf.models > robust_tf.data",
        "robust_tf.errors > robust_tf.xla > robust_tf.errors",
    ]
    assert offered(tmp_path / "robust_tf/data/__init__.py") == (
        None,
        {"load": "robust_tf.data.tfds"},
        [],
    )
    assert offered(tmp_path / "robust_tf/paper/__init__.py") == (
        "Paper.",
        {"train": "robust_tf.runs"},
        None,
    )


def test_the_library_offers_few_names():
    assert len(rt.__all__) == 16
    assert set(rt.__all__) <= set(dir(rt))
    for name in rt.__all__:
        value = getattr(rt, name)
        if name in PACKAGES:
            assert value is sys.modules[f"robust_tf.{name}"]
        else:
            assert value in [
                getattr(place, name, None) for place in (evaluation, notebook, perturbations)
            ]
    with pytest.raises(AttributeError, match="module 'robust_tf' has no attribute 'nothing'"):
        rt.nothing  # noqa: B018


def test_type_checkers_know_them():
    _, places, listed = offered(ROOT / "robust_tf/__init__.py")
    assert sorted(places) == listed == rt.__all__
    assert_hands_out(rt, places)


def test_importing_the_library_does_not_import_tensorflow():
    lines = (
        "import sys, robust_tf as rt",
        "assert rt.__version__ and set(rt.__all__) <= set(dir(rt))",
        "heavy = {'tensorflow', 'keras', 'pandas', 'numpy'} & set(sys.modules)",
        "assert not heavy, heavy",
        "from robust_tf import errors",
        "assert 'robust_tf.data' not in sys.modules",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
