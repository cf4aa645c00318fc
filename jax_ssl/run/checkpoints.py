"""Save a run's state in the background, verify it, and restore it onto any mesh.

A step lies in `FOLDER/STEP/`: the arrays (Orbax), and a manifest with the checksum of every file (manifest.py).
A step that fails its check is never restored: it moves to `FOLDER/damaged/STEP`, one sentence says so, and the step
before it is taken.

Good files are not yet a good network: verdict.py. How the arrays lie on disk: storage.py. Whether a folder may be
continued: identity.py. What the disk does wrong is a LostError, which launchers repeat; only what is not the disk's is
the run's fault. Readers may come while a run writes: a step that goes meanwhile is no error, they look again.
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
LOOKS = 10  # at a folder in which a run writes, before its steps are given up


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


class Checkpoints:
    """The checkpoints of one run. Keeps the `keep_last` newest steps, the `keep_best` with the highest scores, and the
    newest that is proven.

    `save` returns as soon as the arrays are copied; what goes wrong later is raised by the next `save`, `poll` or
    `close`. Every process calls every method; process 0 alone touches manifests, the verdict and damaged steps.
    `say` receives the sentences meant for the user.
    """

    def __init__(self, folder, keep_last: int = 2, keep_best: int = 1, say: Callable = _tell):
        _prepare_orbax()
        self.folder = paths.resolve(folder)
        self.say = say
        self._keep = dict(newest=keep_last, best=keep_best)
        self._manager = None
        self._verdict = verdict.Verdict()
        self._facts = {}  # what the manifest of the step being written will say

    def save(self, step: int, state: PyTree, wait: bool = False) -> None:
        """Writes `state` as `step`, in the background unless `wait`. A step that is already there stays as it is."""
        with self._surfacing_errors():
            manager = self._open()
            manager.wait_until_finished()  # the step before, whose manifest reads self._facts
            if step not in manager.all_steps():
                arrays, description = storage.flatten(state)
                self._facts = {"step": step, "arrays": description}
                manager.save(step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(arrays)), force=True)
            if wait:
                manager.wait_until_finished()

    def score(self, step: int, value: float) -> None:
        """Gives a saved step its score, the higher the better: what is measured is measured after the save."""
        with self._surfacing_errors():
            if step in self._open().all_steps() and math.isfinite(value):
                self._verdict.scores[step] = float(value)
                self._keep_verdict()

    def prove(self, step: int, skipped: int) -> None:
        """Learns that of the steps up to this one the last `skipped` were not finite, and the one before them was."""
        finite, known = step - skipped, self._verdict.finite
        if finite > known and self._manager is not None:
            self._verdict.finite = finite
            if any(known <= saved < finite for saved in self._manager.all_steps()):
                with self._surfacing_errors():
                    self._keep_verdict()

    def fall_back(self) -> str | None:
        """For a run that ends because its steps are not finite: the path of the checkpoint to go back to, or None.

        It is the newest proven one. Later ones are not used again: what ruined them may have been in the last update.
        """
        with self._surfacing_errors():
            self._open().wait_until_finished()
            self._verdict.ruined = True
            self._keep_verdict()
        step = next((step for step, reason in _screen(self.folder, self._verdict) if reason is None), None)
        return None if step is None else str(self.path(step))

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

    def restore(self, abstract_state: PyTree) -> tuple[PyTree, int] | None:
        """The newest good state, laid out as `abstract_state` says, and its step; None if there is none.

        `abstract_state` has the structure of the state with `jax.ShapeDtypeStruct(shape, dtype, sharding=...)` (or
        arrays) for leaves: their shardings, not the saved ones, decide where the arrays go.
        """
        self.close()
        step = self._agree(self._set_damaged_aside)
        if step is None:
            return None
        try:
            with storage.reading(self.path(step)):
                state = storage.restore(self.path(step), abstract_state)
        except storage.Gone as gone:
            raise LostError(
                f"The checkpoint {self.path(step)} changed while it was read; repeat the command."
            ) from gone
        self._open()  # clears what a killed run left half written
        return state, step

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._verdict = verdict.read(self.folder)
            self._verdict.scores = _scores_in_manifests(self.folder) | self._verdict.scores
            options = ocp.CheckpointManagerOptions(
                preservation_policy=retention.policy(self._verdict, **self._keep),
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

    def _keep_verdict(self) -> None:
        if jax.process_index() == 0:
            verdict.write(self.folder, self._verdict)

    def _set_damaged_aside(self) -> int | None:
        """Moves each bad step above the newest good one to `damaged/`; returns the good one."""
        step, known = self._newest_good(), verdict.read(self.folder)
        if known != known.back_to(step):
            verdict.write(self.folder, known.back_to(step))
        return step

    def _newest_good(self) -> int | None:
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
            said, remedy = disk.reason(error) or (None, "make room or give access there")
            kind = RunError if isinstance(error, disk.BUGS) and said is None else LostError
            raise kind(
                f"A checkpoint could not be written to {self.folder}: {f'{said} ' if said else ''}"
                f"({disk.quote(error)}); {remedy}, then repeat the command: it goes on from the last good checkpoint."
            ) from error


def find(path) -> tuple[epath.Path, int | None]:
    """What a user names, a run's folder or one step of it (`RUN/checkpoints/120`), as `load_raw` takes it."""
    path = paths.resolve(path)
    if path.name.isdigit() and path.parent.name == "checkpoints":
        return path.parent, int(path.name)
    return path / "checkpoints", None


def load_raw(folder, step: int | None = None, names: tuple[str, ...] | None = None) -> tuple[dict, int]:
    """The verified arrays of a checkpoint as a nested dict of NumPy arrays, and its step. Changes nothing on disk.

    folder: a `checkpoints` folder; step: None takes the newest good one, passing over damaged ones; names: only these
    sub-trees of the state, for example ("params", "teacher"), are read. Tuples have become dicts keyed "0", "1", ...;
    a typed PRNG key is its uint32 data.
    """
    _prepare_orbax()
    folder = paths.resolve(folder)
    if step is not None and not (folder / str(step)).exists():
        raise UserError(f"There is no checkpoint of step {step} in {folder}; there are: {_list(_steps(folder))}.")
    for _ in range(LOOKS):
        there, problems = _steps(folder), []
        for candidate, reason in _screen(folder) if step is None else [(step, manifest.fault(folder / str(step)))]:
            if reason is None:
                with contextlib.suppress(storage.Gone), storage.reading(folder / str(candidate)):
                    return storage.read_raw(folder / str(candidate), names), candidate
                reason = "it went while it was read"
            problems.append(f"step {candidate}: {reason}")
        if step is not None or _steps(folder) == there:
            break  # else a run writes here, and its new steps may be good
    detail = f" ({'; '.join(problems)})" if problems else ""
    raise UserError(f"There is no good checkpoint in {folder}{detail}; name the folder of a run that has saved one.")


def _steps(folder: epath.Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []


def _screen(folder: epath.Path, known: verdict.Verdict | None = None):
    """Looks at the steps of a folder lazily, newest first: pairs of step and why it is not to be used (None = good)."""
    known = known or verdict.read(folder)
    for step in reversed(_steps(folder)):
        yield step, known.against(step) or manifest.fault(folder / str(step))


def _scores_in_manifests(folder: epath.Path) -> dict[int, float]:
    """Where they were before there was a verdict: the best step of an older run is to outlive its update."""
    found = {}
    for step in _steps(folder):
        with contextlib.suppress(manifest.Damaged):
            found[step] = manifest.read(folder / str(step)).get("score")
    return {step: score for step, score in found.items() if score is not None}


def _list(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def _prepare_orbax() -> None:
    """Orbax tells its life through absl, tracebacks included; what matters we raise or say ourselves."""
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # the other writes of a save that has failed
    retention.allow_plain_buckets()
