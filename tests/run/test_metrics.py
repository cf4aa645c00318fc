"""Numbers that survive kills, and alarms that ring when they should and only then."""

import errno
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from tensorboardX.proto.event_pb2 import Event

from jax_ssl import paths
from jax_ssl.errors import RunError
from jax_ssl.losses import diagnostics
from jax_ssl.run import collapse, metrics, progress
from jax_ssl.run.metrics import Writer

ROOT = Path(__file__).parents[2]


def lines_of(path) -> list[dict]:
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in Path(path).read_text().splitlines()]


def write_run(workdir, steps, step=None):
    writer = Writer(workdir, step=step, total=100, images_per_step=8)
    for number in steps:
        writer.tick()
        writer.update(number, {"loss": 1 / number})
    writer.close()


def events_of(folder) -> list[Event]:
    """The records of all event files: length (8 bytes), crc (4), record, crc (4)."""
    found = []
    for path in sorted(Path(folder).glob("events.*")):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


# The writer


def test_one_update_reaches_every_file(tmp_path, capsys):
    writer = Writer(tmp_path, total=100, images_per_step=8)
    writer.tick()
    loss = jnp.float32(0.1)
    returned = writer.update(10, {"loss": loss, "rankme": np.float32("nan"), "skipped": jnp.int32(0)})
    writer.say("A sentence.")
    writer.close()
    (line,) = lines_of(tmp_path / "metrics.jsonl")
    assert line["step"] == 10 and line["loss"] == float(loss) and line["rankme"] is None and line["skipped"] == 0
    assert line["images_per_second"] == returned["images_per_second"] > 0
    values = [value for event in events_of(tmp_path / "events") for value in event.summary.value]
    scalars = {value.tag: value.simple_value for value in values}
    assert scalars["loss"] == np.float32(loss) and "rankme" not in scalars and "images_per_second" in scalars
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("step  10/100  loss    0.1000") and printed[1] == "A sentence."
    logged = (tmp_path / "log.txt").read_text().splitlines()
    assert [text.split("  ", 1)[1] for text in logged] == printed
    assert logged[0][:2] == "20" and logged[0][10] == " "  # a date, then the time


def test_resumed_run_has_each_step_once(tmp_path):
    write_run(tmp_path, (10, 20, 30))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write('{"step": 15, "loss": 0.5, "name": "Zürich"}'.encode()[:-7])  # torn inside the ü
    write_run(tmp_path, (30, 40), step=20)
    assert [line["step"] for line in lines_of(tmp_path / "metrics.jsonl")] == [10, 20, 30, 40]
    starts = [event.step for event in events_of(tmp_path / "events") if event.HasField("session_log")]
    assert starts == [21]  # TensorBoard drops what an earlier file says from here on


def test_run_that_starts_again_starts_empty(tmp_path):
    write_run(tmp_path, (10, 20))
    (events,) = (tmp_path / "events").iterdir()
    events.rename(events.with_name("events.out.tfevents.1.host"))  # else a new file of the same second replaces it
    (tmp_path / "events" / "notes.txt").write_text("a file of somebody else")
    write_run(tmp_path, (10,))
    assert [line["step"] for line in lines_of(tmp_path / "metrics.jsonl")] == [10]
    drawn = [event.step for event in events_of(tmp_path / "events") if event.summary.value]
    assert drawn and set(drawn) == {10}, "TensorBoard shows one curve"
    assert (tmp_path / "events" / "notes.txt").exists()


def test_say_once_says_a_sentence_once(tmp_path, capsys):
    writer = Writer(tmp_path)
    for sentence in ("A note.", "A note.", "Another note.", "A note."):
        writer.say_once(sentence)
    writer.close()
    assert capsys.readouterr().out.splitlines() == ["A note.", "Another note."]


def test_inactive_process_writes_and_shows_nothing(tmp_path, capsys):
    writer = Writer(tmp_path / "run", images_per_step=8, active=False)
    writer.tick()
    assert "images_per_second" in writer.update(1, {"loss": 1.0})
    writer.say("nobody hears")
    writer.flush()
    writer.close()
    assert not (tmp_path / "run").exists() and capsys.readouterr().out == ""


def test_a_name_that_is_no_utf8_is_logged(tmp_path, capsys):
    writer = Writer(tmp_path)
    writer.say(f"broken: {os.fsdecode(b'caf' + bytes([0xE9]))}.jpg")
    writer.close()
    assert (tmp_path / "log.txt").read_text().endswith("broken: caf\\udce9.jpg\n")


def test_a_full_disk_is_told_once_and_ends_nothing(tmp_path, capsys, monkeypatch):
    writer = Writer(tmp_path, total=10)
    real, room = open, [20, 0, 0, 0, 10**6, 10**6, 10**6]  # bytes that still fit, write by write

    class Full(io.FileIO):
        def write(self, data):
            return super().write(data[: room.pop(0) if room else None])

    full = lambda path, mode="r", **more: Full(path, "ab") if mode == "ab" else real(path, mode, **more)
    monkeypatch.setattr(metrics, "open", full, raising=False)
    monkeypatch.setattr(writer._events, "write_event", refuse)
    for step in (1, 2, 3, 4):
        writer.update(step, {"loss": 1.0})
    writer.close()
    assert capsys.readouterr().out.count("metrics can't be written to") == 1
    assert [line["step"] for line in paths.json_lines(tmp_path / "metrics.jsonl")] == [3, 4]  # 1 is torn, 2 is missing


def refuse(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_remote_workdir_is_uploaded_and_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "is_remote", lambda path: True)
    monkeypatch.setattr(paths, "resolve", epath.Path)
    write_run(tmp_path, (10, 20))
    write_run(tmp_path, (20, 30), step=10)
    assert [line["step"] for line in lines_of(tmp_path / "metrics.jsonl")] == [10, 20, 30]
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 4
    assert len(list((tmp_path / "events").iterdir())) == 2
    write_run(tmp_path, (10,))
    assert len(list((tmp_path / "events").iterdir())) == 1, "a run from the start clears the curves of earlier tries"


def test_no_tensorflow():
    code = "import sys, jax_ssl.run.metrics, jax_ssl.run.collapse; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


# Progress


class Time:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def test_clock_counts_waiting_and_leaves_pauses_out():
    time = Time()
    clock = progress.Clock(images_per_step=64, now=time)

    def batches():
        while True:
            time.seconds += 0.25
            yield "batch"

    source = batches()
    assert clock.read() == {}
    for _ in range(4):
        assert clock.next(source) == "batch"
        time.seconds += 0.75
        clock.tick()
    with clock.paused("evaluation"):
        time.seconds += 100
    expected = {"images_per_second": 64.0, "step_seconds": 1.0, "data_wait": 1.0, "data_wait_share": 0.25}
    assert clock.read() == pytest.approx(expected)
    clock.next(source)
    clock.tick()
    assert clock.read()["data_wait_share"] == 1.0  # a new window


NUMBERS = {"loss": 5.1234, "images_per_second": 1830.0, "data_wait": 1.0, "data_wait_share": 0.03, "step_seconds": 0.5}


def test_slow_work_is_told_and_quick_work_is_not():
    said = []
    with progress.told_if_slow("at it", "took {seconds}", said.append, seconds=60):
        pass
    assert said == []
    with progress.told_if_slow("at it", "took {seconds}", said.append, seconds=0):
        while not said:
            time.sleep(0.001)
    assert said == ["at it", "took 0 s"]


def test_plain_lines_are_aligned():
    early = progress.plain_line(20, 2000, {**NUMBERS, "knn": 0.1})
    late = progress.plain_line(1980, 2000, {**NUMBERS, "loss": 0.00004, "images_per_second": 97.0, "knn": 1.0})
    assert early == "step   20/2000  loss    5.1234  knn    0.1000      1,830 images/s  data wait   3 %  ETA 0:16:30"
    assert all(early.index(word) == late.index(word) for word in ("knn", "images", "ETA"))
    assert late.endswith("ETA 0:00:10") and "4.00e-05" in late
    assert "nan" in progress.plain_line(1, 0, {"loss": float("nan")})


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_terminal_gets_a_bar_and_a_pipe_gets_lines():
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        shown = progress.Progress(total=100, start=40, stream=stream)
        for _ in range(10):
            shown.tick()
        shown.show(50, NUMBERS)
        shown.say("A sentence.")
        shown.close()
    assert pipe.getvalue().splitlines() == [progress.plain_line(50, 100, NUMBERS), "A sentence."]
    bar = terminal.getvalue()
    assert "\r" in bar and " 50% " in bar and "step 50/100, ETA " in bar
    assert "1,830 images/s, loss 5.1234, data wait 3 %" in bar and "A sentence.\n" in bar


# The watch


def random_features(count=512, width=64, seed=0):
    return jax.random.normal(jax.random.key(seed), (count, width))


def test_feature_std_of_known_features():
    assert float(diagnostics.feature_std(random_features())) == pytest.approx(1, abs=0.02)
    assert float(diagnostics.feature_std(jnp.ones((64, 16)))) == pytest.approx(0, abs=1e-6)
    assert float(diagnostics.feature_std(jnp.zeros((64, 16)))) == 0
    signs = jnp.array([[1.0, 1.0], [1.0, -1.0]])  # one constant dimension, one that varies fully: (0 + 1) / 2
    assert float(diagnostics.feature_std(signs)) == pytest.approx(0.5)
    scaled = random_features() * jnp.linspace(0.1, 100, 512)[:, None]  # the length of a feature does not matter
    as_they_are = float(diagnostics.feature_std(random_features()))
    assert float(diagnostics.feature_std(scaled)) == pytest.approx(as_they_are, rel=1e-5)
    assert diagnostics.feature_std(random_features().astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("spectrum", [[1] * 8, [1] * 4 + [0] * 4, [3] + [0] * 7, [8, 4, 2, 1, 0.5, 0.25, 0.1, 0]])
def test_rankme_of_known_spectra(spectrum):
    random = np.random.RandomState(0)
    left, right = np.linalg.qr(random.randn(32, 8))[0], np.linalg.qr(random.randn(8, 8))[0]
    share = np.array([value for value in spectrum if value]) / np.sum(spectrum)
    expected = np.exp(-np.sum(share * np.log(share)))
    features = jnp.asarray(left @ np.diag(spectrum) @ right, jnp.float32)
    assert float(diagnostics.rankme(features)) == pytest.approx(expected, rel=1e-4)
    assert float(diagnostics.rankme(1e4 * features)) == pytest.approx(expected, rel=1e-4)


def test_rankme_of_degenerate_features():
    assert float(diagnostics.rankme(jnp.ones((64, 16)))) == pytest.approx(1, abs=1e-3)
    assert float(diagnostics.rankme(jnp.zeros((64, 16)))) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("shape, rank", [((60, 700), 60), ((300, 40), 40), ((200, 3000), 3), ((300, 40), 2)])
def test_rankme_is_that_of_the_singular_values_tall_or_wide(shape, rank):
    random = np.random.RandomState(0)
    features = (random.randn(shape[0], rank) @ random.randn(rank, shape[1])).astype(np.float32)
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    share = values / values.sum() + 1e-7
    expected = np.exp(-np.sum(share * np.log(share)))
    assert float(diagnostics.rankme(features)) == pytest.approx(expected, rel=1e-4)


def test_rankme_of_wide_features_makes_nothing_that_is_wide_twice():
    program = jax.jit(diagnostics.rankme).lower(jax.ShapeDtypeStruct((60, 150_528), jnp.float32)).compile()
    assert program.memory_analysis().temp_size_in_bytes < 4 * 60 * 150_528 * 4


@jax.jit
def measured(features) -> dict:
    std, rank = diagnostics.feature_std(features), diagnostics.rankme(features)
    return {"loss": 3.0, "uniform_loss": 6.93, "feature_std": std, "rankme": rank}


def test_watch_is_silent_on_random_features():
    alarm = collapse.Watch("simclr")
    assert [alarm.check(step, measured(random_features(seed=step))) for step in range(10)] == [None] * 10


def test_watch_tells_a_persistent_collapse_once():
    alarm = collapse.Watch("simsiam")
    constant = jnp.ones((512, 64)) + 1e-3 * random_features()
    told = [alarm.check(step, measured(constant)) for step in range(8)]
    assert told[:2] == [None, None] and told[3:] == [None] * 5
    start = "simsiam looks collapsed at step 2: all images get nearly the same feature (feature_std 0.00"
    assert told[2].startswith(start)
    assert "RankMe 1." in told[2] and "try" in told[2] and "optim.base_lr" in told[2] and "\n" not in told[2]


def test_watch_forgives_what_does_not_persist_and_waits_for_its_grace():
    constant, healthy = {"feature_std": 0.01}, {"feature_std": 0.9}
    alarm = collapse.Watch("simclr")
    assert not any(alarm.check(step, constant if step % 3 else healthy) for step in range(12))
    alarm = collapse.Watch("simclr", grace=100)
    assert not any(alarm.check(step, constant) for step in range(100))
    assert alarm.check(100, constant) is None and alarm.check(101, constant) is None
    assert not alarm.check(102, {"loss": 1.0})  # says nothing about features, so it neither counts nor forgives
    assert "step 103" in alarm.check(103, constant)


def test_watch_waits_for_the_learning_rate_where_features_were_alike_from_the_start():
    def told(values, **guards):
        alarm = collapse.Watch("dinov2", warmup=50, guards={f"method.{name}": on for name, on in guards.items()})
        return [step for step, value in enumerate(values) if alarm.check(step, {"feature_std": value})]

    assert told([1e-5] * 50 + [0.5] * 10) == [] and told([1e-5] * 60) == [52]
    assert told([0.9] + [1e-5] * 10) == [3] and told([1e-5] * 10, centring=False) == [2]


@pytest.mark.parametrize(
    "sick, healthy, words",
    [
        ({"loss": 6.931, "uniform_loss": 6.93}, {"loss": 6.8, "uniform_loss": 6.93}, "uniform is 6.9300"),
        ({"loss": -0.0005, "uniform_loss": 0.0}, {"loss": -0.1, "uniform_loss": 0.0}, "without information"),
        ({"target_spread": 0.76}, {"target_spread": 0.70}, "targets are uniform"),
        ({"prototype_use": 5.5}, {"prototype_use": 13.0}, "share one prototype"),
        ({"rankme": 1.5}, {"rankme": 2.5}, "a single direction"),
        ({"feature_std": 0.05}, {"feature_std": 0.2}, "nearly the same feature"),
    ],
)
def test_each_symptom_is_known(sick, healthy, words):
    def last_word(numbers):
        alarm = collapse.Watch("dino")
        return [alarm.check(step, numbers) for step in range(3)][-1]

    assert words in last_word(sick)
    assert last_word(healthy) is None
    assert last_word({name: float("nan") for name in sick}) is None  # that is the business of check_finite


def test_what_to_try_is_a_noun():
    """Each reads as a sentence behind "try"."""
    for text, remedy in collapse.TEXTS.values():
        first = remedy.split()[0]
        assert first in ("a", "an", "stronger", "weaker") or first.endswith("ing"), remedy
        assert not remedy.endswith(".") and not text.endswith(".")


def test_check_finite_stops_after_max_skipped():
    collapse.check_finite(4, 5, step=80)
    with pytest.raises(RunError, match="5 steps in a row, up to step 81.* no checkpoint from before"):
        collapse.check_finite(5, 5, step=81)
    with pytest.raises(RunError, match="last good checkpoint is runs/a/checkpoints/60.*--config.init_from=runs/a"):
        collapse.check_finite(9, 5, step=81, last_good="runs/a/checkpoints/60")


def test_the_alarm_names_the_guard_that_is_off_and_no_other():
    def said(**guards):
        alarm = collapse.Watch("byol", guards={f"method.{name}": on for name, on in guards.items()})
        return [alarm.check(step, {"feature_std": 0.01}) for step in range(collapse.PATIENCE)][-1]

    off = said(predictor=False, momentum=True)
    assert "try restoring method.predictor, which byol needs" in off and "momentum" not in off
    assert "predictor" not in said(predictor=True) and "optim.base_lr" in said(predictor=True)


def test_alignment_uniformity_and_pair_cosine_follow_their_definitions():
    x, y = np.random.default_rng(0).normal(size=(2, 12, 5))
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    pairs = [(i, j) for i in range(12) for j in range(12) if i != j]
    first, second = jnp.asarray(3 * x), jnp.asarray(0.5 * y)
    np.testing.assert_allclose(diagnostics.alignment(first, second), ((x - y) ** 2).sum(1).mean(), rtol=1e-5)
    potential = np.mean([np.exp(-2 * ((x[i] - x[j]) ** 2).sum()) for i, j in pairs])
    np.testing.assert_allclose(diagnostics.uniformity(first), np.log(potential), rtol=1e-5)
    cosine = np.mean([x[i] @ x[j] for i, j in pairs])
    np.testing.assert_allclose(diagnostics.pair_cosine(first), cosine, rtol=1e-4, atol=1e-6)


def test_the_information_bound_of_a_loss_that_knows_nothing_is_zero_and_of_no_loss_is_log_n():
    assert abs(diagnostics.information(jnp.log(64.0), 64)["information_bound"]) < 1e-6
    assert diagnostics.information(jnp.float32(0), 64)["information_bound"] == jnp.log(64.0)


@pytest.mark.parametrize(
    "rows, entropy, spread, use",
    [(np.eye(4), 0, 0.25, 4), (np.ones((4, 4)) / 4, 1, 1, 4), (np.eye(4)[[0] * 4], 0, 0.25, 1)],
)
def test_prototype_use_tells_decided_from_varied(rows, entropy, spread, use):
    found = diagnostics.prototype_use(jnp.asarray(rows))
    expected = {"target_entropy": entropy, "target_spread": spread, "prototype_use": use}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


def test_lost_spread_is_an_alarm_only_where_the_loss_does_not_push_apart():
    def said(guards, values):
        alarm = collapse.Watch("simsiam", grace=2, guards=guards)
        return [alarm.check(step, {"uniformity": value}) for step, value in enumerate(values)]

    falling, steady = [-3.2, -2.0, -1.4, -1.3, -1.2, -1.1], [-3.2, -2.9, -2.6, -2.5, -2.5, -2.5]
    off = said({"method.stop_gradient": False}, falling)
    assert off[:4] == [None] * 4 and "lost more than half of their spread" in off[4] and "stop_gradient" in off[4]
    assert not any(said({"method.stop_gradient": True}, steady))
    assert not any(said({"method.iterations": True}, falling))


def test_a_resumed_run_measures_lost_spread_by_the_best_of_all_its_steps(tmp_path):
    before = Writer(tmp_path)
    for step, value in enumerate((-3.2, -1.3), 1):
        before.update(step, {"uniformity": value})
    before.close()
    resumed, told = Writer(tmp_path, step=2), []
    for best in (resumed.least("uniformity"), resumed.least("no such metric")):
        alarm = collapse.Watch("simsiam", guards={"method.stop_gradient": False})
        alarm.recall(best)
        told.append([alarm.check(step, {"uniformity": -1.2}) for step in (3, 4, 5)][-1])
    resumed.close()
    assert "lost more than half of their spread" in told[0] and told[1] is None
