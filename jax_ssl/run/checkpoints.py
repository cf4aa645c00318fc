"""Save a run's state in the background, verify it, and restore it onto any mesh.

A step is in `FOLDER/STEP/`: the arrays (Orbax), and a manifest with the checksum of every file (manifest.py). A step
that fails its check is never restored: it is moved to `FOLDER/damaged/STEP`, one sentence says so, and the step before
it is used.

verdict.py: whether a step with good files may be used. storage.py: the arrays on disk. identity.py: whether a folder
may be continued. An error of the disk is a LostError, so that launchers repeat the command; other errors are a
RunError. A folder can be read while a run writes to it: if a step is deleted meanwhile, the reader looks again.
"""

import contextlib
import logging
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

from jax_ssl import paths
from jax_ssl.errors import LostError, RunError, UserError
from jax_ssl.run import disk, manifest, retention, storage, verdict

PyTree = Any
WITHOUT_OPTIMISER = ("params", "teacher", "extra")  # sub-trees of a state: all from which its networks are made
TRIES = 10  # reads of a folder to which a run writes, until we give up


def _print_error(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


class Checkpoints:
    """The checkpoints of one run. Keeps the `keep_last` newest steps, the `keep_best` with the highest scores, and the
    newest proven one.

    `save` returns when the arrays are copied; an error after that is raised by the next `save`, `poll` or `close`.
    Every process calls every method; only process 0 writes manifests and the verdict and moves damaged steps. `say` is
    called with the sentences for the user.
    """

    def __init__(self, folder, keep_last: int = 2, keep_best: int = 1, say: Callable = _print_error):
        _prepare_orbax()
        self.folder = paths.resolve(folder)
        self.say = say
        self._keep = dict(newest=keep_last, best=keep_best)
        self._manager = None
        self._verdict = verdict.Verdict()
        self._facts = {}  # for the manifest of the step that is being written

    def save(self, step: int, state: PyTree, wait: bool = False) -> None:
        """Writes `state` as `step`, in the background unless `wait`. A step that is already there stays as it is."""
        with self._errors_of_saving():
            manager = self._open()
            manager.wait_until_finished()  # the step before, whose manifest reads self._facts
            if step not in manager.all_steps():
                arrays, description = storage.flatten(state)
                self._facts = {"step": step, "arrays": description}
                manager.save(step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(arrays)), force=True)
            if wait:
                manager.wait_until_finished()

    def score(self, step: int, value: float) -> None:
        """Sets the score of a saved step, the higher the better. It comes after `save`, as probes do."""
        with self._errors_of_saving():
            if step in self._open().all_steps() and math.isfinite(value):
                self._verdict.scores[step] = float(value)
                self._write_verdict()

    def mark_finite(self, step: int, skipped: int) -> None:
        """Notes that step - skipped was finite, and the `skipped` steps after it were not."""
        finite, known = step - skipped, self._verdict.finite
        if finite > known and self._manager is not None:
            self._verdict.finite = finite
            if any(known <= saved < finite for saved in self._manager.all_steps()):
                with self._errors_of_saving():
                    self._write_verdict()

    def mark_ruined(self) -> str | None:
        """For a run that ends because no step is finite any more. Returns the newest proven checkpoint's path, or None.

        Later checkpoints are not used again: they may have been made after the update that ruined the network.
        """
        with self._errors_of_saving():
            self._open().wait_until_finished()
            self._verdict.ruined = True
            self._write_verdict()
        step = next((step for step, reason in _check_steps(self.folder, self._verdict) if reason is None), None)
        return None if step is None else str(self.path(step))

    def poll(self) -> None:
        """Raises the error of a background save that has failed meanwhile."""
        if self._manager is not None and not self._manager.is_saving_in_progress():
            with self._errors_of_saving():
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for a save in the background and closes the folder."""
        if self._manager is not None:
            with self._errors_of_saving():
                self._manager.close()
            self._manager = None

    def path(self, step: int) -> epath.Path:
        """The folder of a step."""
        return self.folder / str(step)

    def restore(self, abstract_state: PyTree) -> tuple[PyTree, int] | None:
        """(state, step) of the newest good checkpoint, with the shardings of `abstract_state`; None if there is none.

        `abstract_state` has the structure of the state, with `jax.ShapeDtypeStruct(shape, dtype, sharding=...)` or
        arrays as leaves. Raises UserError for a checkpoint of another model, LostError for an error of the disk.
        """
        self.close()
        step = self._from_first(self._move_damaged)
        if step is None:
            return None
        try:
            with storage.reading(self.path(step)):
                state = storage.restore(self.path(step), abstract_state)
        except storage.StepChanged as change:
            raise LostError(
                f"The checkpoint {self.path(step)} changed while it was read; repeat the command."
            ) from change
        self._open()  # deletes the incomplete step of a killed run
        return state, step

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._verdict = verdict.read(self.folder)
            self._verdict.scores = _scores_in_manifests(self.folder) | self._verdict.scores
            options = ocp.CheckpointManagerOptions(
                preservation_policy=retention.policy(self._verdict, **self._keep),
                cleanup_tmp_directories=True,
                lightweight_initialize=True,  # else Orbax can't open a folder with one damaged step
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            )
            self._manager = retention.Manager(self.folder, item_names=(storage.ITEM,), options=options)
        return self._manager

    def _seal(self) -> None:
        """Writes the manifest of the step that is being saved.

        Orbax calls this when all data is written, before the step gets its final name (or, on object stores, its commit
        file). So manifest and data are committed together. Older steps are deleted only after that: a kill at any time
        leaves a good step.
        """
        name = str(self._facts["step"])
        unfinished = [path for path in self.folder.iterdir() if path.name.startswith(f"{name}.")]
        manifest.write(unfinished[0] if unfinished else self.folder / name, storage.ITEM, **self._facts)

    def _write_verdict(self) -> None:
        if jax.process_index() == 0:
            verdict.write(self.folder, self._verdict)

    def _move_damaged(self) -> int | None:
        """Moves each bad step that is newer than the newest good one to `damaged/`; returns the good one."""
        step, known = self._newest_good(), verdict.read(self.folder)
        if known != known.up_to(step):
            verdict.write(self.folder, known.up_to(step))
        return step

    def _newest_good(self) -> int | None:
        for step, reason in _check_steps(self.folder):
            if reason is None:
                return step
            target = self.folder / "damaged" / str(step)
            if target.exists():
                target.rmtree()
            target.parent.mkdir(parents=True, exist_ok=True)
            self.path(step).rename(target)
            self.say(f"The checkpoint of step {step} is not used, because {reason}; it was moved to {target}.")
        return None

    def _from_first(self, decide: Callable[[], int | None]) -> int | None:
        """What `decide` returns on process 0, on every process."""
        if jax.process_count() == 1:
            return decide()
        step = decide() if jax.process_index() == 0 else None
        step = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step)))
        return None if step < 0 else step

    @contextlib.contextmanager
    def _errors_of_saving(self):
        """Turns an error of a save into one sentence. Orbax raises many kinds, most of them ValueError."""
        try:
            yield
        except Exception as error:
            self._manager = None  # it would raise the same error again and again
            fault, remedy = disk.reason(error) or (None, "make room or give access there")
            kind = RunError if isinstance(error, disk.BUGS) and fault is None else LostError
            raise kind(
                f"A checkpoint could not be written to {self.folder}: {f'{fault} ' if fault else ''}"
                f"({disk.quote(error)}); {remedy}, then repeat the command: it goes on from the last good checkpoint."
            ) from error


def find(path) -> tuple[epath.Path, int | None]:
    """(folder, step) for `load_raw`, from a run's folder (step None) or one of its steps, `RUN/checkpoints/120`."""
    path = paths.resolve(path)
    if path.name.isdigit() and path.parent.name == "checkpoints":
        return path.parent, int(path.name)
    return path / "checkpoints", None


def load_raw(folder, step: int | None = None, names: tuple[str, ...] | None = None) -> tuple[dict, int]:
    """The verified arrays of a checkpoint as a nested dict of NumPy arrays, and its step. Changes nothing on disk.

    folder: a `checkpoints` folder. step: None takes the newest good one. names: only these sub-trees of the state, for
    example WITHOUT_OPTIMISER, are read. Tuples have become dicts keyed "0", "1", ...; a typed PRNG key is its uint32
    data. Raises UserError if there is no such checkpoint or no good one, LostError for an error of the disk.
    """
    _prepare_orbax()
    folder = paths.resolve(folder)
    if step is not None and not (folder / str(step)).exists():
        raise UserError(f"There is no checkpoint of step {step} in {folder}; there are: {_list(_steps(folder))}.")
    for _ in range(TRIES):
        there, problems = _steps(folder), []
        for candidate, reason in _check_steps(folder) if step is None else [(step, manifest.fault(folder / str(step)))]:
            if reason is None:
                with contextlib.suppress(storage.StepChanged), storage.reading(folder / str(candidate)):
                    return storage.read_raw(folder / str(candidate), names), candidate
                reason = "it changed while it was read"
            problems.append(f"step {candidate}: {reason}")
        if step is not None or _steps(folder) == there:
            break  # else a run writes here: look at its new steps
    detail = f" ({'; '.join(problems)})" if problems else ""
    raise UserError(f"There is no good checkpoint in {folder}{detail}; name the folder of a run that has saved one.")


def _steps(folder: epath.Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []


def _check_steps(folder: epath.Path, known: verdict.Verdict | None = None):
    """Yields (step, why it must not be used; None = good), newest first. A step is checked when it is asked for."""
    known = known or verdict.read(folder)
    for step in reversed(_steps(folder)):
        yield step, known.objection(step) or manifest.fault(folder / str(step))


def _scores_in_manifests(folder: epath.Path) -> dict[int, float]:
    """{step: score} of manifests: older versions wrote scores there, before there was a verdict."""
    found = {}
    for step in _steps(folder):
        with contextlib.suppress(manifest.Damaged):
            found[step] = manifest.read(folder / str(step)).get("score")
    return {step: score for step, score in found.items() if score is not None}


def _list(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def _prepare_orbax() -> None:
    """Sets Orbax's options, and silences its log, which has tracebacks of errors that we raise ourselves."""
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it logs the other writes of a save that has failed
    retention.allow_plain_buckets()
    storage.save_small_arrays_whole()
