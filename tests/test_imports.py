"""Which room may import which. Arrows point down, and there are no circles, inside a room neither."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / "jax_ssl"
LOOSE = {  # the files beside the rooms; a new one belongs into a room
    "__init__", "__main__", "bounds", "config", "core", "encoder", "errors", "masking", "parts", "paths", "sharding",
    "train",
}  # fmt: skip
EVERYWHERE = {"bounds", "errors", "paths"}
BELOW_TRAIN = {"config", "core", "data", "encoder", "evaluate", "optim", "parts", "run", "sharding", "views",
               "visualize", "weights"}  # fmt: skip
MAY_IMPORT = {  # besides EVERYWHERE and itself, from the bottom up
    "errors": set(), "bounds": set(), "paths": set(), "masking": set(), "losses": set(), "views": set(), "optim": set(),
    "sharding": set(),
    "config": {"configs"},
    "core": {"sharding"},
    "models": {"losses", "masking", "sharding"},
    "parts": {"core", "models"},
    "encoder": {"models", "sharding", "views"},
    "data": {"views"},
    "run": {"config", "configs", "core", "data", "encoder", "losses", "optim", "parts", "views"},
    "weights": {"config", "encoder", "losses", "models", "parts", "run", "views"},
    "methods": {"core", "losses", "masking", "models", "optim", "weights"},
    "evaluate": {"encoder", "losses", "models", "optim", "sharding", "views"},
    "visualize": {"encoder", "evaluate", "views"},
    "train": BELOW_TRAIN,
    "plan": BELOW_TRAIN | {"models", "train"},  # which attention the networks take
    "benchmark": BELOW_TRAIN | {"train", "plan"},
    "study": BELOW_TRAIN | {"train", "plan", "benchmark", "configs", "__version__"},
    "commands": {"benchmark", "config", "plan", "run", "study", "train", "views", "weights", "__version__"},
    "__main__": {"commands", "run"},
}  # fmt: skip
# What a device pipeline, a laptop and the other rooms do without.
TENSORFLOW = ("data", "views/host.py", "weights/saved_model.py")
WITHOUT_JAX = {  # what is read before jax is loaded, or has no arrays
    "errors", "bounds", "paths", "config", "data", "run/manifest", "run/progress", "run/metrics", "run/stop",
    "run/terminal", "run/outputs", "run/collapse", "run/goodput", "run/watchdog", "run/disk", "run/lock",
    "run/verdict", "views/draws", "views/cut", "views/sizes",
    "study/seals", "plan/published", "plan/chips", "commands", "__main__",
}  # fmt: skip


def imports(path):
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = ROOT.parent.joinpath(*node.module.split("."))
            for alias in node.names:
                is_module = (inside / f"{alias.name}.py").exists() or (inside / alias.name).is_dir()
                yield f"{node.module}.{alias.name}" if is_module or node.module == "jax_ssl" else node.module


def module(path) -> str:
    return ".".join(("jax_ssl", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def files():
    return sorted(ROOT.rglob("*.py"))


def test_imports_point_down():
    for path in files():
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for name in imports(path):
            if name.startswith("jax_ssl."):
                there = name.split(".")[1]
                assert there == room or there in MAY_IMPORT[room] | EVERYWHERE, f"{path.name} imports {name}"


def test_the_law_itself_points_down():
    order = list(MAY_IMPORT)
    for room, below in MAY_IMPORT.items():
        for other in below & set(order):
            assert order.index(other) < order.index(room), f"{room} may import {other}, which comes after it"


def test_libraries_stay_in_their_rooms():
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        for top in {library.split(".")[0] for library in imports(path)}:
            if top == "tensorflow":
                assert name.startswith(TENSORFLOW), f"{name} imports {top}"
            if top == "jax":
                assert not name.startswith(tuple(WITHOUT_JAX)), f"{name} imports {top}"


def test_there_are_no_circles():
    graph = {module(path): set(imports(path)) for path in files()}
    done, way = set(), []

    def visit(name):
        assert name not in way, f"a circle: {' -> '.join([*way[way.index(name) :], name])}"
        if name in done:
            return
        way.append(name)
        for other in sorted(graph[name] & set(graph) - {name}):
            visit(other)
        done.add(way.pop())

    for name in graph:
        visit(name)


def test_no_new_loose_file():
    assert {path.stem for path in ROOT.glob("*.py")} == LOOSE


def test_every_room_says_what_happens_there():
    for init in ROOT.glob("*/__init__.py"):
        assert ast.get_docstring(ast.parse(init.read_text())), init


def test_methods_do_not_import_each_other():
    for path in (ROOT / "methods").glob("*.py"):
        assert not [name for name in imports(path) if name.startswith("jax_ssl.methods")], path.name


def test_files_are_short():
    for path in files():
        limit = 150 if path.parent.name == "methods" else 300
        assert len(path.read_text().splitlines()) <= limit, path.name
