"""One command at a time writes in a run's folder; `RUN/lock.json` says which.

The owner writes its host, its process and, every BEAT seconds, a sign of life. One that was killed is found out: on the
same machine because its process is gone, elsewhere because its sign of life grows old. So the same command may be
started again at once after a crash or while an owner elsewhere is still saving, and two commands at once never write
into each other. Clocks of hosts have to agree within a minute. `evaluate` and `visualize` ask nobody.
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
BEAT = 15.0  # seconds between two signs of life
OLD = 120.0  # seconds without one, after which an owner on another host is dead; time that a living one has to end
LOOK = 2.0  # seconds between two looks at such an owner
SETTLE = 0.2  # seconds after which of two that came at the same moment one sees that it was the first


@contextlib.contextmanager
def exclusive(workdir, say: Callable = print):
    """What happens in here has the folder to itself. Of several processes the first takes the lock, for all of them.

    say: told when this has to wait for an owner on another host. Raises UserError, on every process, if another command
    is at work there and stays.
    """
    lock = Lock(workdir, say)
    hosts.first_does(lock.take)
    try:
        yield
    finally:
        lock.release()


class Lock:
    """`take` and `release`; in between a thread gives signs of life, and ends the process if another took over."""

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
            self._thread.join(BEAT)  # else a last sign of life could come after the end
            with contextlib.suppress(OSError):  # a disk that fails now must not hide why the run ends
                if self._is_own(self._read()):
                    self.file.unlink(missing_ok=True)
            self._own = None

    def _wait_for_owner(self) -> None:
        """Returns when there is no owner, or none that lives; one elsewhere has OLD seconds to come to its end."""
        begun = changed = time.monotonic()
        last = None
        while (owner := self._read()) is not None and not gone(owner, self.folder):
            if at_home(owner):
                raise self._in_use(owner)
            now = time.monotonic()
            if last is None:
                if time.time() - owner["alive"] < OLD:
                    self.say(
                        f"{_name(owner)} is, or was, at work in {self.workdir}; waiting up to {OLD:.0f} s for its end"
                    )
                else:
                    changed = now - OLD
            elif owner["alive"] != last["alive"]:
                changed = now
            if now - changed >= OLD:
                self.say(f"{_name(owner)} gives no sign of life any more; {self.workdir} is taken over from it")
                return
            if now - begun >= OLD and now - changed < 3 * BEAT:
                raise self._in_use(owner)
            last = owner
            time.sleep(LOOK)

    def _in_use(self, owner: dict) -> UserError:
        return UserError(
            f"{self.workdir} is in use by {_name(owner)} since {owner['since']}; wait for its end, stop it, or choose "
            "another --workdir."
        )

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            try:
                other = self._read()
                if other is not None and not self._is_own(other):
                    return self._end(other)
                self._own["alive"] = time.time()
                self._write()
            except OSError:
                continue  # a disk that does not answer; the run itself will meet it

    def _end(self, other: dict) -> None:
        """This process was away for so long that another took it for dead: two must not write."""
        print(f"jax_ssl: {_name(other)} has taken over {self.workdir}: this process ends.", file=sys.stderr, flush=True)
        os._exit(EXIT[LostError])

    def _is_own(self, found: dict | None) -> bool:
        return found is not None and self._own is not None and found["token"] == self._own["token"]

    def _write(self) -> None:
        paths.write(self.file, json.dumps(self._own, indent=1) + "\n")

    def _read(self) -> dict | None:
        """None for no lock, and for one that a kill has torn."""
        try:
            found = json.loads(self.file.read_text())
            return found if {"host", "pid", "started", "alive", "token"} <= found.keys() else None
        except (FileNotFoundError, ValueError, AttributeError):
            return None


def describe_self(folder: str) -> dict:
    """What the lock of a folder says of its owner. pid and its start tell one process of a machine from a later one."""
    now = datetime.datetime.now().astimezone()
    return dict(
        folder=folder, host=socket.gethostname(), machine=machine(), pid=os.getpid(), started=start_of(os.getpid()),
        since=now.isoformat(sep=" ", timespec="seconds"), alive=time.time(), token=uuid.uuid4().hex,
    )  # fmt: skip


def machine() -> str:
    """This boot of this machine, and in it this container: where a process number means what it means here."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""  # no Linux: the name of the host has to do


def start_of(pid: int) -> str | None:
    """When a process of this machine was started, "" if the system does not say; None if it does not run."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, *rest = file.read().rpartition(")")[2].split()  # the name before it may hold anything
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


def at_home(owner: dict) -> bool:
    """Whether the owner is a process of this machine, whose life can be asked for."""
    return (owner["host"], owner.get("machine")) == (socket.gethostname(), machine())


def gone(owner: dict, folder: str) -> bool:
    """Whether the owner is known to have ended, or to own another folder, of which this one is a copy."""
    return at_home(owner) and (start_of(owner["pid"]) != owner["started"] or owner.get("folder") != folder)


def _name(owner: dict) -> str:
    return f"process {owner['pid']} on {owner['host']}"
