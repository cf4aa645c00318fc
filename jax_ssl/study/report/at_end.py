"""The page of a run that has just ended, with a note of how the run was started."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import jax

from jax_ssl import __version__
from jax_ssl.errors import sentence_of
from jax_ssl.study import frozen, measure
from jax_ssl.study.report import facts, page

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


def write_page(workdir: str, command: str, look: bool, table: frozen.Table | None, say) -> None:
    """Writes RUN/report.html on process 0. Any error is only one line, as the run itself is finished and saved.

    command: as a shell takes it. look: with what the network sees; of several processes none can extract it alone.
    table: what was just measured of the run, which is not opened and measured again.
    """
    if jax.process_index() != 0:
        return
    try:
        facts.record_start(workdir, command, versions(), measure.hardware())
        page.write(workdir, look=look and jax.process_count() == 1, table=table, say=say)
        say(f"a page with all of it: {workdir}/{page.NAME}")
    except Exception as error:
        cause = sentence_of(error)
        say(f"The run is finished and saved, but its page is not written: {cause} (report --run={workdir} tries again)")


def versions() -> dict[str, str]:
    """{library: version} of what trained, and the commit of a checkout."""
    found = {"jax_ssl": __version__} | {name: importlib.metadata.version(name) for name in LIBRARIES}
    found["Python"] = platform.python_version()
    own = commit()
    return found | {"commit": own} if own else found


def commit() -> str:
    """The commit of the checkout that this package lies in, "" where it was installed."""
    root = Path(__file__).parents[3]
    asked = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=5).stdout.split("\n")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told[1] if len(told) > 1 and Path(told[0]) == root else ""
