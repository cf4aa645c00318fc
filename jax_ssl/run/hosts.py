"""The processes of one run, usually one per host: how they connect, stop at the same step, and end if one fails.

In a cluster that jax knows (TPU VMs, GKE JobSets, several slices, SLURM, Open MPI) no flags are needed; elsewhere flags
or variables give each process its place. A run of one process opens no network connection.
"""

import contextlib
import importlib.util
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jax_ssl import paths
from jax_ssl.errors import EXIT, LostError, RunError, UserError
from jax_ssl.run import disk
from jax_ssl.run.devices import check_devices, has_tpu_chips
from jax_ssl.run.watchdog import calling_after

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
BIND = "JAX_COORDINATOR_BIND_ADDRESS"
SENTENCE = 1000  # bytes of a sentence that is sent to the other processes


class Place(NamedTuple):
    """coordinator: HOST:PORT where process 0 listens; processes: how many; process: which one this is, from 0."""

    coordinator: str
    processes: int
    process: int


def find_place(coordinator: str | None, processes: int | None, process: int | None, environ: Mapping) -> Place | None:
    """The Place from flags or, where a flag is None, from VARIABLES; None if none is given. Raises UserError."""
    given = [coordinator, processes, process]
    given = [environ.get(name) if value is None else value for name, value in zip(VARIABLES, given)]
    if all(value is None for value in given):
        return None
    if coordinator is None and given[1:] == [None, None] and in_cluster(environ):
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


def in_cluster(environ: Mapping) -> bool:
    """Whether the environment says that a launcher known to jax has started several processes."""
    if environ.get("SLURM_STEP_NODELIST") or environ.get("OMPI_MCA_orte_hnp_uri"):
        return int(environ.get("SLURM_NTASKS") or environ.get("OMPI_COMM_WORLD_SIZE") or 1) > 1
    if "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ:
        return True
    workers = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
    return has_tpu(environ) and ("," in workers or int(environ.get("MEGASCALE_NUM_SLICES") or 1) > 1)


def has_tpu(environ: Mapping) -> bool:
    """Whether this machine has TPU chips that jax will use."""
    wanted = environ.get("JAX_PLATFORMS") or "tpu"
    return "tpu" in wanted and has_tpu_chips() and importlib.util.find_spec("libtpu") is not None


def connect(where: Place | None, init_timeout: int, heartbeat: int, environ: Mapping = os.environ) -> None:
    """Connects this process with the others, before any device is used; does nothing for a run of one process.

    init_timeout: seconds until all processes have connected. heartbeat: seconds without a heartbeat until a process
    counts as dead. Raises UserError if process 0 can't listen, LostError if jax can't connect. If the others don't
    appear, the process ends with LostError's exit code and a sentence: jax would abort it with a stack trace.
    """
    # jax's timeout is later than ours, so that our sentence is printed.
    options = dict(initialization_timeout=init_timeout + 60, heartbeat_timeout_seconds=heartbeat)
    if where is not None and where.processes > 1:
        bind = environ.get(BIND, where.coordinator)
        if where.process == 0:
            _try_to_listen(bind)
        # The bind address: by default jax would listen on every network that the machine has.
        options |= dict(coordinator_bind_address=bind, cluster_detection_method="deactivate")
        with _time_limit(init_timeout, f"The {where.processes} processes of this run, at {where.coordinator},"):
            _initialize(*where, **options)
    elif where is None and (in_cluster(environ) or (has_tpu(environ) and "TPU_SKIP_MDS_QUERY" not in environ)):
        with _time_limit(init_timeout, "The processes that this cluster has started"):
            _initialize(alone_is_fine=not in_cluster(environ), **options)


def _initialize(*where, alone_is_fine: bool = False, **options) -> None:
    try:
        jax.config.update("jax_enable_preemption_service", True)
        jax.distributed.initialize(*where, **options)
    except Exception as error:  # of many kinds: jax's, the metadata server's, those of Kubernetes
        if alone_is_fine and not isinstance(error, RuntimeError):
            return  # TPU chips, but no metadata server that knows of other hosts
        reason = str(error).strip().split("\n")[0][:300]
        raise LostError(f"The processes of this run could not be connected: {reason}") from error


def _time_limit(seconds: int, who: str):
    """Ends the process if the code inside `with` takes longer."""

    def end():
        remedy = "start the same command for each of them, and see that the first can be reached from all."
        sentence = f"{who} did not all appear within config.hosts.init_timeout={seconds} seconds: {remedy}"
        print(f"jax_ssl: {sentence}", file=sys.stderr, flush=True)
        os._exit(EXIT[LostError])

    return calling_after(seconds, end)


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


def is_distributed() -> bool:
    """Whether this run has several processes."""
    return jax.process_count() > 1


def sync_point() -> Callable[[int], bool] | None:
    """A function turn -> whether all processes stop at this turn, since one got a SIGTERM; None for one process.

    Every process has to call it in every turn, from the first one on. jax handles the signal, in C.
    """
    return multihost_utils.reached_preemption_sync_point if is_distributed() else None


def from_first(choice: bool | float) -> bool | float:
    """The value that `choice` has on process 0, on every process."""
    return type(choice)(multihost_utils.broadcast_one_to_all(choice)) if is_distributed() else choice


def run_on_first(action: Callable[[], None]) -> None:
    """Calls `action` on process 0 while the others wait. An error of EXIT is raised on every process."""
    if not is_distributed():
        return action()
    message = ""
    if jax.process_index() == 0:
        try:
            action()
        except tuple(EXIT) as error:
            message = f"{EXIT[type(error)]} {error}"
    padded = np.frombuffer(message.encode()[:SENTENCE].ljust(SENTENCE), np.uint8)
    received = bytes(multihost_utils.broadcast_one_to_all(padded)).decode(errors="ignore").strip()
    code, _, sentence = received.partition(" ")
    if code:
        raise {number: kind for kind, number in EXIT.items()}[int(code)](sentence)


@contextlib.contextmanager
def connected(where: Place | None, init_timeout: int, heartbeat: int):
    """Inside `with`, the processes of a run are connected; arguments and errors as of `connect`.

    Yields `print` to process 0, and to the others a function that prints nothing.
    """
    connect(where, init_timeout, heartbeat)
    try:
        check_devices()
    except tuple(EXIT) as error:
        if jax.distributed.is_initialized():
            _exit_process(error)
        raise
    with exit_on_error():
        yield print if jax.process_index() == 0 else lambda *_: None
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


@contextlib.contextmanager
def exit_on_error():
    """Ends this process at once after an error, with one sentence, if the run has several processes.

    Normal clean-up would wait for the others, which wait for this one. The coordinator ends them when this one sends no
    heartbeat any more.
    """
    try:
        yield
    except BaseException as error:
        if not (jax.distributed.is_initialized() and is_distributed()):
            raise
        _exit_process(error, f"process {jax.process_index()} of {jax.process_count()}: ")


def _exit_process(error: BaseException, who: str = "") -> None:
    """Ends this process at once, with the sentence and the exit code of an error."""
    sentence, code = _sentence_and_code(error)
    print(f"jax_ssl: {who}{sentence}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


def _sentence_and_code(error: BaseException) -> tuple[str, int]:
    """The sentence and the exit code for an error among several processes."""
    if isinstance(error, OSError):
        error = disk.lost_error(error) or error
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
