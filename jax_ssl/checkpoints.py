"""Save a run's state in the background, verify it, and restore it onto any mesh.

A step lies in `FOLDER/STEP/`: the arrays (Orbax), and a manifest with the checksum of every file (manifest.py).
A step that fails its check is never restored: it moves to `FOLDER/damaged/STEP`, one sentence says so, and the step
before it is taken.

How the arrays lie on disk: storage.py. The run's config lies beside, and decides whether a folder may be continued.
"""

import contextlib
import json
import math
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils import epath
from jax.experimental import multihost_utils

from jax_ssl import manifest, paths, retention, storage
from jax_ssl.errors import RunError, UserError

PyTree = Any


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


class Checkpoints:
    """The checkpoints of one run. Keeps the `keep_last` newest steps and the `keep_best` with the highest `metric`.

    `save` returns as soon as the arrays are copied; what goes wrong later is raised by the next `save`, `poll` or
    `close`. Every process calls every method; process 0 alone touches manifests and damaged steps.
    `say` receives the sentences meant for the user.
    """

    def __init__(self, folder, keep_last: int = 2, keep_best: int = 1, metric: str = "knn", say: Callable = _tell):
        _prepare_orbax()
        self.folder = _absolute(folder)
        self.metric = metric
        self.say = say
        self._best = retention.Best(keep_best)
        self._keep = retention.newest_and(self._best, keep_last)
        self._manager = None
        self._facts = {}  # what the manifest of the step being written will say

    def save(self, step: int, state: PyTree, metrics: dict | None = None, wait: bool = False) -> None:
        """Writes `state` as `step`, in the background unless `wait`. A step that is already there stays as it is."""
        with self._surfacing_errors():
            manager = self._open()
            manager.wait_until_finished()  # the step before, whose manifest reads self._facts
            if step not in manager.all_steps():
                arrays, description = storage.flatten(state)
                score = (metrics or {}).get(self.metric)
                score = float(score) if score is not None and math.isfinite(score) else None
                self._facts = {"step": step, "score": score, "arrays": description}
                self._best.scores[step] = score
                manager.save(step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(arrays)), force=True)
            if wait:
                manager.wait_until_finished()

    def poll(self) -> None:
        """Raises the error of a background save that has failed since; costs nothing otherwise."""
        if self._manager is not None and not self._manager.is_saving_in_progress():
            with self._surfacing_errors():
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for what is being written and lets go of the folder."""
        if self._manager is not None:
            with self._surfacing_errors():
                self._manager.close()
            self._manager = None

    def path(self, step: int) -> epath.Path:
        return self.folder / str(step)

    def latest_good(self) -> int | None:
        """The newest step whose files are all as they were written, or None. Moves nothing."""
        return next((step for step, reason in _screen(self.folder) if reason is None), None)

    def restore(self, abstract_state: PyTree) -> tuple[PyTree, int] | None:
        """The newest good state, laid out as `abstract_state` says, and its step; None if there is none.

        `abstract_state` has the structure of the state with `jax.ShapeDtypeStruct(shape, dtype, sharding=...)` (or
        arrays) for leaves: their shardings, not the saved ones, decide where the arrays go.
        """
        self.close()
        step = self._agree(self._set_damaged_aside)
        if step is None:
            return None
        state = storage.restore(self.path(step), abstract_state)
        self._open()  # clears what a killed run left half written
        return state, step

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._best.scores = {step: _score(self.path(step)) for step in _steps(self.folder)}
            options = ocp.CheckpointManagerOptions(
                preservation_policy=self._keep,
                cleanup_tmp_directories=True,
                lightweight_initialize=True,  # else one damaged step keeps the whole folder from being opened
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            )
            self._manager = retention.Manager(self.folder, item_names=(storage.ITEM,), options=options)
        return self._manager

    def _seal(self) -> None:
        """Writes the manifest of the step in the making.

        Orbax calls this when all data is written and before the step gets its final name (or, on object stores, its
        commit file). Manifest and data are committed together, and older steps are deleted only after that: there
        is no moment at which a kill leaves no good step.
        """
        name = str(self._facts["step"])
        unfinished = [path for path in self.folder.iterdir() if path.name.startswith(f"{name}.")]
        manifest.write(unfinished[0] if unfinished else self.folder / name, storage.ITEM, **self._facts)

    def _set_damaged_aside(self) -> int | None:
        """Moves each bad step above the newest good one to `damaged/`; returns the good one."""
        for step, reason in _screen(self.folder):
            if reason is None:
                return step
            target = self.folder / "damaged" / str(step)
            if target.exists():
                target.rmtree()
            target.parent.mkdir(parents=True, exist_ok=True)
            self.path(step).rename(target)
            self.say(f"The checkpoint of step {step} is not used, because {reason}; it was moved to {target}.")
        return None

    def _agree(self, decide: Callable[[], int | None]) -> int | None:
        """What process 0 decides, on every process."""
        if jax.process_count() == 1:
            return decide()
        step = decide() if jax.process_index() == 0 else None
        step = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step)))
        return None if step < 0 else step

    @contextlib.contextmanager
    def _surfacing_errors(self):
        """Turns whatever a save ran into into one sentence. Orbax raises many kinds, most of them ValueError."""
        try:
            yield
        except Exception as error:
            self._manager = None  # it would raise the same error for ever
            first_line = str(error).strip().split("\n")[0][:300]
            raise RunError(
                f"A checkpoint could not be written to {self.folder} ({type(error).__name__}: {first_line}); make room "
                "or give access there, then repeat the command: it goes on from the last good checkpoint."
            ) from error


def load_raw(folder, step: int | None = None, names: tuple[str, ...] | None = None) -> tuple[dict, int]:
    """The verified arrays of a checkpoint as a nested dict of NumPy arrays, and its step. Changes nothing on disk.

    folder: a `checkpoints` folder; step: None takes the newest good one, passing over damaged ones; names: only these
    sub-trees of the state, for example ("params", "teacher"), are read. Tuples have become dicts keyed "0", "1", ...;
    a typed PRNG key is its uint32 data.
    """
    _prepare_orbax()
    folder = _absolute(folder)
    if step is not None and not (folder / str(step)).exists():
        raise UserError(f"There is no checkpoint of step {step} in {folder}; there are: {_list(_steps(folder))}.")
    problems = []
    for candidate, reason in _screen(folder):
        if step is None or candidate == step:
            if reason is None:
                return storage.read_raw(folder / str(candidate), names), candidate
            problems.append(f"step {candidate}: {reason}")
    detail = f" ({'; '.join(problems)})" if problems else ""
    raise UserError(f"There is no good checkpoint in {folder}{detail}; name the folder of a run that has saved one.")


def _absolute(folder) -> epath.Path:
    """Orbax refuses a relative path; an address such as gs://bucket is absolute, and `resolve` would spoil it."""
    return paths.resolve(folder)


def _steps(folder: epath.Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []


def _screen(folder: epath.Path):
    """Verifies the steps of a folder lazily, newest first: pairs of step and what is wrong (None = good)."""
    for step in reversed(_steps(folder)):
        try:
            manifest.verify(folder / str(step))
            yield step, None
        except manifest.Damaged as damage:
            yield step, str(damage)


def _score(path: epath.Path) -> float | None:
    try:
        return manifest.read(path)["score"]
    except manifest.Damaged:
        return None


def _list(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def _prepare_orbax() -> None:
    """Orbax tells its life through absl, tracebacks included; what matters we raise or say ourselves."""
    absl_logging.set_verbosity(absl_logging.FATAL)
    retention.allow_plain_buckets()


# The config beside the checkpoints.

# Keys that may differ when a run is continued: they change what it costs, shows or keeps, not what it learns.
FREE = ("log_every", "checkpoint_every", "probe_every", "keep_last", "keep_best", "on_collapse")
FREE += ("data.workers", "data.dir")
FREE_SECTIONS = ("mesh.", "hosts.")


def check_config(workdir, config: dict) -> None:
    """Raises a UserError unless a run with this config may write, and continue what is, in `workdir`."""
    paths.check_run(workdir)
    workdir = paths.make_writable(workdir, "choose another --workdir")
    file = workdir / "config.json"
    if not file.exists():
        return
    try:
        there = _leaves(json.loads(file.read_text()))
    except ValueError:
        raise UserError(f"{file} cannot be read as JSON; choose another --workdir, or delete that file.") from None
    here = _leaves(json.loads(json.dumps(config)))  # tuples become lists, as they are in the file
    differing = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
    differing = [key for key in differing if key not in FREE and not key.startswith(FREE_SECTIONS)]
    if differing:
        shown = [f"{key}: {_show(there, key)} there, {_show(here, key)} here" for key in differing[:5]]
        more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise UserError(
            f"The folder {workdir} holds a run with another config ({'; '.join(shown)}{more}); choose another "
            "--workdir for this one."
        )


def write_config(workdir, config: dict) -> None:
    """Writes `config.json`, sorted, all of it or nothing; of several processes, the first does."""
    if jax.process_index() != 0:
        return
    workdir = paths.resolve(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    temporary = workdir / "config.json.tmp"
    temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    temporary.replace(workdir / "config.json")


def _leaves(tree, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": [{"c": 1}]}} -> {"a.b.0.c": 1}; lists of plain values stay whole."""
    if isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        tree = {str(position): item for position, item in enumerate(tree)}
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat |= _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _show(leaves: dict, key: str) -> str:
    return json.dumps(leaves[key]) if key in leaves else "absent"
