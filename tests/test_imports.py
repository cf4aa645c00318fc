"""Which room may import which. Arrows point down; there are no circles."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / "jax_ssl"
EVERYWHERE = {"errors", "paths", "bounds"}
MAY_IMPORT = {
    "errors": set(),
    "paths": set(),
    "bounds": {"errors"},
    "parts": {"core", "errors", "methods", "models"},
    "checks": {"data", "encoder", "errors", "optim", "parts", "schedules"},
    "core": {"errors", "sharding"},
    "sharding": {"errors"},
    "masking": set(),
    "augment": set(),
    "schedules": set(),
    "updates": {"errors"},
    "optim": {"schedules", "updates"},
    "losses": {"losses"},
    "config": {"configs", "errors"},
    "data": {"data", "errors"},
    "models": {"models", "errors", "losses", "sharding"},
    "methods": {"core", "errors", "losses", "masking", "models", "optim", "schedules", "weights"},
    "encoder": {"errors", "models", "sharding"},
    "evaluate": {"augment", "encoder", "errors", "evaluate", "losses", "models", "optim", "schedules",
                 "sharding", "updates"},
    "visualize": {"encoder", "evaluate", "visualize"},
    "manifest": set(),
    "storage": {"disk", "errors", "manifest"},
    "disk": {"errors"},
    "verdict": set(),
    "retention": {"verdict"},
    "checkpoints": {"disk", "errors", "manifest", "retention", "storage", "verdict"},
    "identity": {"config", "configs", "disk", "errors", "parts"},
    "lock": {"errors", "hosts"},
    "goodput": set(),
    "progress": {"goodput"},
    "metrics": {"progress"},
    "stop": set(),
    "devices": {"errors"},
    "terminal": set(),
    "outputs": {"errors"},
    "command_line": {"__version__", "config", "errors"},
    "hosts": {"devices", "disk", "errors"},
    "profiling": {"errors"},
    "watchdog": {"errors"},
    "introduction": {"devices", "optim"},
    "watch": {"errors"},
    "train": {"augment", "checkpoints", "checks", "config", "core", "data", "encoder", "errors", "evaluate", "hosts",
              "identity", "introduction", "lock", "metrics", "models", "optim", "parts", "profiling", "schedules",
              "sharding", "stop", "visualize", "warm_start", "watch", "watchdog"},
    "weights": {"checkpoints", "config", "encoder", "errors", "models", "parts", "weights"},
    "measure": {"checkpoints", "checks", "config", "core", "data", "encoder", "errors", "evaluate", "metrics", "parts",
                "train"},
    "rulers": {"encoder", "errors", "measure", "metrics", "parts"},
    "evaluation": {"data", "errors", "evaluate", "measure", "metrics", "parts", "rulers"},
    "subject": {"checkpoints", "core", "data", "encoder", "errors", "measure", "parts", "schedules", "visualize",
                "weights"},
    "gallery": {"data", "encoder", "errors", "evaluate", "parts", "subject", "train", "visualize"},
    "warm_start": {"checkpoints", "config", "encoder", "errors", "losses", "models", "parts", "weights"},
    "seals": {"errors", "published"},
    "ablate": {"checks", "config", "configs", "errors", "identity", "measure", "metrics", "outputs", "stop",
               "train"},
    "flops": set(),
    "chips": {"errors"},
    "published": set(),
    "plan": {"checks", "chips", "data", "errors", "flops", "plan", "sharding", "train"},
    "benchmark_input": {"data", "errors"},
    "benchmark": {"checks", "chips", "config", "data", "errors", "flops", "sharding", "train", "metrics", "progress"},
}  # fmt: skip
LIBRARIES = {  # the libraries that some rooms keep out
    "tensorflow": {"data"},
    "jax": set(MAY_IMPORT) - {"errors", "paths", "bounds", "config", "manifest", "progress", "metrics", "seals",
                              "published", "chips", "stop", "terminal", "outputs", "command_line", "watch", "goodput",
                              "disk", "lock", "verdict", "watchdog", "data", "benchmark_input"},
}  # fmt: skip


def imports(path):
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "jax_ssl":
            yield from (f"jax_ssl.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_imports_point_down():
    for path in sorted(ROOT.rglob("*.py")):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        for name in imports(path):
            top, *rest = name.split(".")
            if top == "jax_ssl":
                assert rest[0] == room or rest[0] in MAY_IMPORT[room] | EVERYWHERE, f"{path.name} imports {name}"
            if top in LIBRARIES:
                assert room in LIBRARIES[top], f"{path.name} imports {name}"


def test_methods_do_not_import_each_other():
    for path in (ROOT / "methods").glob("*.py"):
        assert not [name for name in imports(path) if name.startswith("jax_ssl.methods")], path.name


def test_files_are_short():
    for path in ROOT.rglob("*.py"):
        limit = 150 if path.parent.name == "methods" else 300
        assert len(path.read_text().splitlines()) <= limit, path.name
