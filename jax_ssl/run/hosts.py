"""The processes of one run, usually one a host: how they find each other, stop together, and part from one that fails.

A cluster that jax knows (TPU VMs, GKE JobSets, several slices, SLURM, Open MPI) needs no word; elsewhere each process
is told its place. Where neither is the case nothing asks a network anything.
"""

import contextlib
import importlib.util
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jax_ssl import paths
from jax_ssl.errors import EXIT, LostError, RunError, UserError
from jax_ssl.run import disk
from jax_ssl.run.devices import check_devices, tpu_chips

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
BIND = "JAX_COORDINATOR_BIND_ADDRESS"
SENTENCE = 1000  # bytes of one that is told to other processes


class Place(NamedTuple):
    """Where process 0 listens, HOST:PORT; how many processes there are; and which of them this one is."""

    coordinator: str
    processes: int
    process: int


def place(coordinator: str | None, processes: int | None, process: int | None, environ: Mapping) -> Place | None:
    """The place that flags give or, where a flag is missing, VARIABLES; None if nothing is said. Raises UserError."""
    given = [coordinator, processes, process]
    given = [environ.get(name) if value is None else value for name, value in zip(VARIABLES, given)]
    if all(value is None for value in given):
        return None
    if coordinator is None and given[1:] == [None, None] and cluster(environ):
        return None  # jax reads the address itself and knows the rest
    if None in given:
        raise UserError(
            "--coordinator=HOST:PORT, --processes=N and --process=I (0 to N-1), or the variables "
            f"{', '.join(VARIABLES)}, belong together: one of them is missing."
        )
    try:
        found = Place(str(given[0]), int(given[1]), int(given[2]))
        host, port = found.coordinator.rsplit(":", 1)
        valid = host and 0 < int(port) < 2**16 and 0 <= found.process < found.processes
    except ValueError:
        valid = False
    if not valid:
        raise UserError(
            f"coordinator {given[0]}, processes {given[1]}, process {given[2]}: give HOST:PORT of process 0, how many "
            "processes there are, and which this one is, counted from 0."
        )
    return found


def cluster(environ: Mapping) -> bool:
    """Whether the environment says that a launcher known to jax has started several processes."""
    if environ.get("SLURM_STEP_NODELIST") or environ.get("OMPI_MCA_orte_hnp_uri"):
        return int(environ.get("SLURM_NTASKS") or environ.get("OMPI_COMM_WORLD_SIZE") or 1) > 1
    if "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ:
        return True
    workers = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
    return tpu(environ) and ("," in workers or int(environ.get("MEGASCALE_NUM_SLICES") or 1) > 1)


def tpu(environ: Mapping) -> bool:
    """Whether this machine has TPU chips that jax will use."""
    wanted = environ.get("JAX_PLATFORMS") or "tpu"
    return "tpu" in wanted and tpu_chips() and importlib.util.find_spec("libtpu") is not None


def join(where: Place | None, init_timeout: int, heartbeat: int, environ: Mapping = os.environ) -> None:
    """Connects this process with the others, before any device is touched; a run of one process stays as it is.

    init_timeout, heartbeat: seconds that the others may take to appear, and to give a sign of life.
    Raises UserError for a place that cannot be taken. Ends the process, with LostError's exit code and a sentence, when
    the others don't appear: jax would abort it with a stack trace.
    """
    # Later than ours; the difference is the time in which our sentence is said.
    options = dict(initialization_timeout=init_timeout + 60, heartbeat_timeout_seconds=heartbeat)
    if where is not None and where.processes > 1:
        bind = environ.get(BIND, where.coordinator)
        if where.process == 0:
            _try_to_listen(bind)
        # The bind address: by default jax would listen on every network that the machine has.
        options |= dict(coordinator_bind_address=bind, cluster_detection_method="deactivate")
        with _within(init_timeout, f"The {where.processes} processes of this run, told of {where.coordinator},"):
            _initialize(*where, **options)
    elif where is None and (cluster(environ) or (tpu(environ) and "TPU_SKIP_MDS_QUERY" not in environ)):
        with _within(init_timeout, "The processes that this cluster has started"):
            _initialize(alone_is_fine=not cluster(environ), **options)


def _initialize(*where, alone_is_fine: bool = False, **options) -> None:
    try:
        jax.config.update("jax_enable_preemption_service", True)
        jax.distributed.initialize(*where, **options)
    except Exception as error:  # of many kinds: jax's, the metadata server's, those of Kubernetes
        if alone_is_fine and not isinstance(error, RuntimeError):
            return  # TPU chips, but no metadata server that knows of other hosts
        reason = str(error).strip().split("\n")[0][:300]
        raise LostError(f"The processes of this run could not be connected: {reason}") from error


@contextlib.contextmanager
def _within(seconds: int, who: str):
    """Ends the process when what happens in here takes longer."""

    def end():
        remedy = "start the same command for each of them, and see that the first can be reached from all."
        sentence = f"{who} did not all appear within config.hosts.init_timeout={seconds} seconds: {remedy}"
        print(f"jax_ssl: {sentence}", file=sys.stderr, flush=True)
        os._exit(EXIT[LostError])

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _try_to_listen(address: str) -> None:
    """Raises a UserError if no server can listen at HOST:PORT."""
    host, port = address.rsplit(":", 1)
    try:
        where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        socket.create_server(where[4][:2], family=where[0]).close()
    except OSError as error:
        raise UserError(
            f"Process 0 cannot listen on {address} ({str(error.strerror).split(' (')[0]}): give an "
            f"address of this machine and a free port as --coordinator, or one to listen on in {BIND}."
        ) from None


def several() -> bool:
    return jax.process_count() > 1


def sync_point() -> Callable[[int], bool] | None:
    """turn -> whether all processes, one of which got a SIGTERM, stop at this turn; None for a run of one process.

    From the first turn on every process has to ask at every turn. jax's notifier waits for the signal, in C.
    """
    return multihost_utils.reached_preemption_sync_point if several() else None


def from_first(choice: bool) -> bool:
    """What process 0 chooses, on every process."""
    return bool(multihost_utils.broadcast_one_to_all(choice)) if several() else choice


def first_does(action: Callable[[], None]) -> None:
    """Process 0 does it, the others wait; what is wrong there is raised on every process, with the same sentence."""
    if not several():
        return action()
    told = ""
    if jax.process_index() == 0:
        try:
            action()
        except tuple(EXIT) as error:
            told = f"{EXIT[type(error)]} {error}"
    padded = np.frombuffer(told.encode()[:SENTENCE].ljust(SENTENCE), np.uint8)
    heard = bytes(multihost_utils.broadcast_one_to_all(padded)).decode(errors="ignore").strip()
    code, _, sentence = heard.partition(" ")
    if code:
        raise {number: kind for kind, number in EXIT.items()}[int(code)](sentence)


@contextlib.contextmanager
def joined(where: Place | None, init_timeout: int, heartbeat: int):
    """What happens in here, several processes do together, and leave together; arguments and errors of `join`.

    Gives `print` to one of them, and to the others a function that says nothing.
    """
    join(where, init_timeout, heartbeat)
    try:
        check_devices()
    except tuple(EXIT) as error:
        if jax.distributed.is_initialized():
            _leave(error)
        raise
    with exit_on_error():
        yield print if jax.process_index() == 0 else lambda *_: None
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


@contextlib.contextmanager
def exit_on_error():
    """Ends a process that fails among several at once, with the sentence that says why.

    Cleaning up would wait for the others, who wait for this one. When it is gone the coordinator tells them, within
    the heartbeat.
    """
    try:
        yield
    except BaseException as error:
        if not (jax.distributed.is_initialized() and several()):
            raise
        _leave(error, f"process {jax.process_index()} of {jax.process_count()}: ")


def _leave(error: BaseException, who: str = "") -> None:
    """Ends this process at once, with the sentence and the exit code of an error."""
    sentence, code = _sentence_and_code(error)
    print(f"jax_ssl: {who}{sentence}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


def _sentence_and_code(error: BaseException) -> tuple[str, int]:
    """The sentence and the exit code for an error among several processes."""
    if isinstance(error, OSError):
        error = disk.lost(error) or error
    if type(error) in EXIT:
        return str(error), EXIT[type(error)]
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, jax.errors.JaxRuntimeError):
        first_line = str(error).strip().split("\n")[0][:300]
        if "RESOURCE_EXHAUSTED" in first_line:  # repeating the command would not help
            return f"the memory is too small ({first_line}): try micro_batch, or mesh.fsdp.", EXIT[RunError]
        return (
            f"a step could not be computed ({first_line}); if another process has died, this is why. The same command, "
            "on all of them, goes on from the last checkpoint."
        ), EXIT[LostError]
    if paths.bucket_trouble(error):
        return paths.bucket_trouble(error), EXIT[LostError]
    return "".join(traceback.format_exception(error)).rstrip(), 1
