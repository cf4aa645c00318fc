"""Which room may import which. Arrows point down; there are no circles."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / "jax_ssl"
EVERYWHERE = {"errors", "paths"}
MAY_IMPORT = {
    "errors": set(),
    "paths": set(),
    "parts": {"errors", "methods", "models"},
    "checks": {"encoder", "errors", "parts"},
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
    "storage": {"errors", "manifest"},
    "retention": set(),
    "checkpoints": {"core", "errors", "manifest", "retention", "storage"},
    "goodput": set(),
    "progress": {"goodput"},
    "metrics": {"progress"},
    "stop": set(),
    "hosts": {"errors"},
    "profiling": {"errors"},
    "watchdog": {"errors"},
    "watch": {"errors"},
    "train": {"augment", "checkpoints", "checks", "config", "core", "data", "encoder", "errors", "evaluate", "hosts",
              "metrics", "models", "optim", "parts", "profiling", "schedules", "sharding", "stop", "visualize",
              "warm_start", "watch", "watchdog"},
    "weights": {"checkpoints", "config", "encoder", "errors", "models", "weights"},
    "measure": {"checkpoints", "config", "core", "data", "encoder", "errors", "evaluate", "metrics", "parts", "train"},
    "gallery": {"checkpoints", "core", "data", "encoder", "errors", "evaluate", "measure", "parts", "schedules",
                "train", "visualize", "weights"},
    "warm_start": {"checkpoints", "config", "encoder", "errors", "losses", "models", "parts", "weights"},
    "seals": {"errors", "published"},
    "ablate": {"checkpoints", "checks", "config", "configs", "errors", "measure", "metrics", "train"},
    "flops": set(),
    "chips": {"errors"},
    "published": set(),
    "plan": {"checks", "chips", "data", "errors", "flops", "plan", "sharding", "train"},
    "benchmark_input": {"data", "errors"},
    "benchmark": {"checks", "chips", "config", "data", "errors", "flops", "sharding", "train", "metrics", "progress"},
}  # fmt: skip
LIBRARIES = {  # the libraries that some rooms keep out
    "tensorflow": {"data"},
    "jax": set(MAY_IMPORT) - {"errors", "paths", "config", "manifest", "progress", "metrics", "seals", "published",
                              "chips", "stop", "watch", "goodput", "watchdog", "data", "benchmark_input"},
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
