"""The lock of a run's folder: only one command at a time writes there; `RUN/lock.json` says which.

The owner writes its host, its process and, every HEARTBEAT seconds, the time. A lock whose owner was killed is taken
over: on the same machine because the process does not run, elsewhere because the heartbeat is old. So the same command
may be started again at once after a crash, or while an owner elsewhere still saves, and two commands never write at the
same time. Clocks of hosts have to agree within a minute. `evaluate` and `visualize` do not take the lock.
"""

import contextlib
import datetime
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable

from jax_ssl import paths
from jax_ssl.errors import EXIT, LostError, UserError
from jax_ssl.run import hosts

NAME = "lock.json"
HEARTBEAT = 15.0  # seconds between two heartbeats
TIMEOUT = 120.0  # seconds without a heartbeat until an owner on another host counts as dead; we wait that long for it
POLL = 2.0  # seconds between two reads of the lock of such an owner
SETTLE = 0.2  # seconds after which, of two commands that write at the same moment, both read whose lock it is


@contextlib.contextmanager
def exclusive(workdir, say: Callable = print):
    """Inside `with`, no other command writes to the folder. Of several processes, process 0 takes the lock for all.

    say: called with a sentence when this waits for an owner on another host. Raises UserError, on every process, if
    another command uses the folder and does not end in time.
    """
    lock = Lock(workdir, say)
    hosts.run_on_first(lock.take)
    try:
        yield
    finally:
        lock.release()


class Lock:
    """`take` and `release`. In between a thread writes heartbeats; it ends the process if another took the lock."""

    def __init__(self, workdir, say: Callable = print):
        self.workdir, self.say = workdir, say
        self.file = paths.resolve(workdir) / NAME
        self.folder = str(workdir) if paths.is_remote(workdir) else os.path.realpath(self.file.parent)
        self._own = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)

    def take(self) -> None:
        self._wait_for_owner()
        self._own = describe_self(self.folder)
        self._write()
        time.sleep(SETTLE)
        other = self._read()
        if other is not None and other["token"] != self._own["token"]:
            self._own = None
            raise self._in_use(other)
        self._thread.start()

    def release(self) -> None:
        self._over.set()
        if self._own is not None:
            self._thread.join(HEARTBEAT)  # else a last heartbeat could write the lock again
            with contextlib.suppress(OSError):  # an error of the disk must not hide why the run ends
                if self._is_own(self._read()):
                    self.file.unlink(missing_ok=True)
            self._own = None

    def _wait_for_owner(self) -> None:
        """Returns when no living command owns the folder; waits up to TIMEOUT seconds for an owner on another host."""
        started = changed = time.monotonic()
        last = None
        while (owner := self._read()) is not None and not has_ended(owner, self.folder):
            if on_this_machine(owner):
                raise self._in_use(owner)
            now = time.monotonic()
            if last is None:
                if time.time() - owner["alive"] < TIMEOUT:
                    self.say(
                        f"{_name(owner)} uses, or used, {self.workdir}; waiting up to {TIMEOUT:.0f} s for it to end"
                    )
                else:
                    changed = now - TIMEOUT
            elif owner["alive"] != last["alive"]:
                changed = now
            if now - changed >= TIMEOUT:
                self.say(f"{_name(owner)} sends no heartbeat any more; {self.workdir} is taken over from it")
                return
            if now - started >= TIMEOUT and now - changed < 3 * HEARTBEAT:
                raise self._in_use(owner)
            last = owner
            time.sleep(POLL)

    def _in_use(self, owner: dict) -> UserError:
        return UserError(
            f"{self.workdir} is in use by {_name(owner)} since {owner['since']}; wait until it ends, stop it, or "
            "choose another --workdir."
        )

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT):
            try:
                other = self._read()
                if other is not None and not self._is_own(other):
                    return self._end(other)
                self._own["alive"] = time.time()
                self._write()
            except OSError:
                continue  # the disk does not answer; the run's own writes will report it

    def _end(self, other: dict) -> None:
        """Ends this process: it was suspended for so long that another one took the lock, and two must not write."""
        print(f"jax_ssl: {_name(other)} has taken over {self.workdir}: this process ends.", file=sys.stderr, flush=True)
        os._exit(EXIT[LostError])

    def _is_own(self, found: dict | None) -> bool:
        return found is not None and self._own is not None and found["token"] == self._own["token"]

    def _write(self) -> None:
        paths.write(self.file, json.dumps(self._own, indent=1) + "\n")

    def _read(self) -> dict | None:
        """The content of the lock file; None if there is none, or if it is incomplete."""
        try:
            found = json.loads(self.file.read_text())
            return found if {"host", "pid", "started", "alive", "token"} <= found.keys() else None
        except (FileNotFoundError, ValueError, AttributeError):
            return None


def in_use(workdir) -> bool:
    """Whether another command that seems to be alive has the lock of this folder."""
    lock = Lock(workdir)
    owner = lock._read()
    if owner is None or has_ended(owner, lock.folder):
        return False
    return owner["pid"] != os.getpid() if on_this_machine(owner) else time.time() - owner["alive"] < TIMEOUT


def describe_self(folder: str) -> dict:
    """The content of a lock file for this process. pid and start time identify a process, as pids are used again."""
    now = datetime.datetime.now().astimezone()
    return dict(
        folder=folder, host=socket.gethostname(), machine=machine(), pid=os.getpid(), started=start_of(os.getpid()),
        since=now.isoformat(sep=" ", timespec="seconds"), alive=time.time(), token=uuid.uuid4().hex,
    )  # fmt: skip


def machine() -> str:
    """An id of this boot of this machine and of this container; pids are only comparable within it. "" if unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""  # not Linux: only the name of the host is compared


def start_of(pid: int) -> str | None:
    """The start time of a process of this machine, "" if the system does not say; None if it does not run."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, *rest = file.read().rpartition(")")[2].split()  # the name before it may have any characters
        return None if state in "ZX" else rest[18]
    except FileNotFoundError:
        if os.path.exists("/proc/self/stat"):
            return None
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def on_this_machine(owner: dict) -> bool:
    """Whether the owner is a process of this machine, so that we can check if it still runs."""
    return (owner["host"], owner.get("machine")) == (socket.gethostname(), machine())


def has_ended(owner: dict, folder: str) -> bool:
    """Whether the owner is known to have ended, or owns another folder, of which this one is a copy."""
    return on_this_machine(owner) and (start_of(owner["pid"]) != owner["started"] or owner.get("folder") != folder)


def _name(owner: dict) -> str:
    return f"process {owner['pid']} on {owner['host']}"
