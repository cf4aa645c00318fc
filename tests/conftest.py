"""Eight simulated CPU devices for every test, set before jax is imported, and the record of what the seals rest on."""

import functools
import gc
import os
import shutil
import signal
import tempfile

from tests.devices import xla_flags

# JAX_SSL_TESTS_ON names another platform, for the tests that one GPU or TPU can run (tests/benchmarks/accelerator.py).
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_SSL_TESTS_ON", "cpu")
if os.environ["JAX_PLATFORMS"] == "cpu":
    os.environ["XLA_FLAGS"] = xla_flags(8)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

# What one test has compiled, the others and the processes that they start need not compile again; kept for one session.
CACHE = None if "JAX_COMPILATION_CACHE_DIR" in os.environ else tempfile.mkdtemp(prefix="jax_ssl_tests_")
if CACHE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

# Tracing makes millions of small objects that live long: looking through them for cycles takes a twentieth of the time.
gc.set_threshold(1_000_000, 20, 1000)

import jax  # noqa: E402
import pytest  # noqa: E402

from jax_ssl import config  # noqa: E402
from jax_ssl.study import seals  # noqa: E402

config.folder()  # makes jax_ssl.configs importable from a checkout


@pytest.fixture(scope="session")
def saved_runs(tmp_path_factory):
    """Folders of runs by the name of their method, made when first asked for, which nobody writes to."""
    from tests.runs import save_run

    return functools.cache(lambda name: save_run(tmp_path_factory.mktemp("runs") / name, name))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, saved_runs):
    """The same as copies, which the tests of a file may write to."""
    return functools.cache(lambda name: shutil.copytree(saved_runs(name), tmp_path_factory.mktemp("runs") / name))


@pytest.fixture
def hangup():
    """SIGHUP as it is by default, here and in processes that are started: TPU's compiler, if loaded, ignores it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def kept_by_nobody():
    """For tests whose large programs no other test compiles: to write them down takes a twentieth of their time."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, float("inf"))
    yield
    jax.config.update(name, before)


def pytest_collection_finish():
    gc.freeze()  # what is imported now stays: no search for cycles has to go through it


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With several workers: neighbours stay together, so that what the tests of a file share is made once."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_addoption(parser):
    parser.addoption("--record-seals", action="store_true", help="write outcomes of tests marked `seal` as evidence")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when != "call" and not (report.when == "setup" and report.failed):
        return
    for mark in item.iter_markers("seal"):
        number, method = mark.args if len(mark.args) == 2 else (mark.args[0], item.callspec.params["name"])
        report.user_properties.append(("seal", {"method": method, "seal": number, "test": item.nodeid}))


def pytest_runtest_logreport(report):
    found = [value for name, value in report.user_properties if name == "seal"]
    outcomes.extend(value | {"passed": report.passed, "date": seals.today()} for value in found)


outcomes = []


def pytest_sessionfinish(session):
    # With xdist the workers have no option set here; only the process that gathers reports writes.
    if session.config.getoption("--record-seals") and not hasattr(session.config, "workerinput") and outcomes:
        seals.merge("tests.jsonl", outcomes, key=lambda r: (r["method"], r["seal"], r["test"]))
    if CACHE:
        shutil.rmtree(CACHE, ignore_errors=True)
