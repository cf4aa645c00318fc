"""A whole life of a run in a bucket, through the clients of a TPU VM; the bucket is tests/fake_gcs.py.

Whatever opens, lists or makes a local file with the bucket's name in its path is caught by an audit hook of Python.
"""

import contextlib
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from jax_ssl import __main__ as command
from jax_ssl import weights
from jax_ssl.data import selection
from jax_ssl.data.sources import open_source
from jax_ssl.run import checkpoints, metrics, profiling
from jax_ssl.study import seals
from tests import fake_gcs
from tests.small import overrides
from tests.test_train import stop_at
from tests.weights.arrays import read

STEP = 32 / 5000  # epochs of one step of 32 embedded images
GOLDEN = Path(__file__).parent / "golden"
FOLDER = "runs/a=b,c"
RUN = f"gs://bucket/{FOLDER}"
touched = []  # local paths that are named after a bucket


def watch(event, arguments):
    of_files = event == "open" or event.startswith(("os.", "shutil.", "glob.")) and event != "os.putenv"
    if of_files and any("gs:" in os.fsdecode(a) for a in arguments if isinstance(a, str | bytes)):
        touched.append((event, arguments))


sys.addaudithook(watch)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with fake_gcs.served(tmp_path_factory.mktemp("certificate")) as (bucket, environment):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            yield bucket


def flags(workdir, steps, *more):
    own = ["--config.log_every=1", "--config.optim.warmup_epochs=0", f"--config.epochs={steps * STEP}",
           "--config.checkpoint_every=2", "--config.probe_every=4", "--config.picture_every=2",
           "--config.data.probe.train=100", "--config.data.probe.test=50", "--config.model.stages=(1,)"]  # fmt: skip
    return ["train", "--config=simclr:tiny", f"--workdir={workdir}", *overrides("simclr", *own), *more]


def lines(bucket, name) -> list[dict]:
    return [json.loads(line) for line in bucket.read(name).splitlines()]


@contextlib.contextmanager
def nowhere_else(folder):
    """Works in an empty folder, which has to stay so."""
    touched.clear()
    with contextlib.chdir(folder):
        yield
    assert not touched and not os.listdir(folder)


@pytest.fixture(autouse=True)
def nothing_local(tmp_path):
    with nowhere_else(tmp_path):
        yield


@pytest.fixture(scope="module")
def run(bucket, tmp_path_factory):
    """What was printed by a run of six steps that was stopped at the third, gone on with, and measured."""
    said = io.StringIO()
    with nowhere_else(tmp_path_factory.mktemp("empty")), contextlib.redirect_stdout(said):
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, 3)
            assert command.main(flags(RUN, 6)) == 0
        assert command.main(flags(RUN, 6)) == 0
    return said.getvalue()


def test_train_is_stopped_and_goes_on(bucket, run):
    assert "the same command goes on" in run and "going on from step 3" in run and "raw pixels" in run
    assert [line["step"] for line in lines(bucket, f"{FOLDER}/metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert {"pixels", "untrained", "student"} <= {r["weights"] for r in lines(bucket, f"{FOLDER}/results.jsonl")}
    names = {name.removeprefix(f"{FOLDER}/") for name in bucket.names()}
    assert {"config.json", "log.txt", "goodput.json", "pictures/curves.png", "pictures/views_0000006.png"} <= names
    assert "going on from step 3" in bucket.read(f"{FOLDER}/log.txt").decode()
    assert bucket.read(f"{FOLDER}/pictures/curves.png").startswith(b"\x89PNG")
    assert sum(name.startswith("events/events.") for name in names) == 2
    assert {name.split("/")[1] for name in names if name.startswith("checkpoints/")} >= {"4", "6"}


def test_evaluate_and_draw(bucket, run, capfd):
    before = len(lines(bucket, f"{FOLDER}/results.jsonl"))
    assert command.main(["evaluate", f"--run={RUN}", "--task=knn", "--weights=student"]) == 0
    assert len(lines(bucket, f"{FOLDER}/results.jsonl")) > before
    assert command.main(["visualize", f"--run={RUN}", "--what=pca,views", "--count=4"]) == 0
    out, err = capfd.readouterr()
    assert f"->  {RUN}/pictures/pca_student.png" in out and err == ""
    assert bucket.read(f"{FOLDER}/pictures/pca_student.png").startswith(b"\x89PNG")


def test_a_run_that_may_only_be_read_is_measured_and_not_recorded(bucket, run, capfd):
    before, look = bucket.read(f"{FOLDER}/results.jsonl"), ["visualize", f"--run={RUN}", "--what=pca", "--count=2"]
    with bucket.refusing(FOLDER):
        assert command.main(["evaluate", f"--run={RUN}", "--task=knn", "--weights=student"]) == 0
        out, err = capfd.readouterr()
        assert "student" in out and out.count("not recorded, because") == 1 and err == ""
        assert command.main(look) == 2
        assert "--out" in capfd.readouterr().err
        assert command.main([*look, "--out=gs://bucket/elsewhere"]) == 0
    assert bucket.read(f"{FOLDER}/results.jsonl") == before
    assert "elsewhere/pca_student.png" in bucket.names()


def test_begin_with_weights_of_a_bucket(bucket, run, capfd):
    short = ["--config.evaluate_at_end=False", "--config.probe_every=0", "--config.picture_every=0"]
    assert command.main(flags("gs://bucket/warm", 1, f"--config.init_from={RUN}", *short)) == 0
    assert f"starting from backbone of {RUN}, projector of {RUN}" in capfd.readouterr().out
    bucket.write("weights/dino.pth", (GOLDEN / "dino_vit.pth").read_bytes())
    encode = weights.load("gs://bucket/weights/dino.pth")
    assert encode.backbone.depth == weights.load(GOLDEN / "dino_vit.pth").backbone.depth


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_weights_of_other_kinds(bucket, kind):
    arrays, packed = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, io.BytesIO()
    np.savez(packed, **arrays)
    bucket.write(f"weights/a.{kind}", packed.getvalue() if kind == "npz" else safetensors.numpy.save(arrays))
    np.testing.assert_array_equal(read(f"gs://bucket/weights/a.{kind}")["a"], arrays["a"])


def test_weights_in_and_out(bucket, capfd, tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("JAX_SSL_CACHE", str(cache))
    for name in ("dino", "dino_vits16"):
        bucket.write(f"weights/{name}.pth", (GOLDEN / "dino_vit.pth").read_bytes())
    there, folder, hub = (f"gs://bucket/weights/{name}" for name in ("dino.pth", "imported", "hub"))
    for words in (
        ["import", there, f"--out={folder}"], ["inspect", there], ["inspect", folder],
        ["export", f"--weights={folder}", "--to=torch", "--out=gs://bucket/out.pth"],
        ["export", f"--weights={there}", "--to=huggingface", f"--out={hub}"], ["inspect", hub],
        ["get", "dino_vits16", "--from=gs://bucket/weights"],
    ):  # fmt: skip
        assert command.main(["weights", *words]) == 0, words
    assert capfd.readouterr().err == "" and (cache / "weights" / "dino_vits16.pth").exists()
    assert command.main(["weights", "import", there, f"--out={folder}"]) == 2
    assert "is not empty" in capfd.readouterr().err
    before, after = read(GOLDEN / "dino_vit.pth"), read("gs://bucket/out.pth")
    assert before.keys() == after.keys()
    np.testing.assert_array_equal(before["norm.weight"], after["norm.weight"])


def test_a_damaged_checkpoint_is_set_aside(bucket, capfd):
    keeper = checkpoints.Checkpoints("gs://bucket/torn/checkpoints")
    keeper.save(1, {"a": np.zeros(3)}, wait=True)
    keeper.close()
    bucket.write("torn/checkpoints/1/manifest.json", b"{}")
    assert keeper.restore({}) is None
    assert "manifest" in capfd.readouterr().err
    assert "torn/checkpoints/damaged/1/manifest.json" in bucket.names()
    assert not [name for name in bucket.names() if name.startswith("torn/checkpoints/1/")]


def test_images_of_a_bucket(bucket):
    picture, packed = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(picture, "PNG")
    for place in range(4):
        bucket.write(f"images/{'ab'[place % 2]}/{place}.png", picture.getvalue())
    source = open_source("folder:gs://bucket/images", "train")
    assert source.classes == 2 and source.read(0).size == (32, 32)
    assert selection.from_folder("gs://bucket/images", 2, 32).shape == (2, 32, 32, 3)
    np.savez(packed, x_train=np.zeros((5, 8, 8, 3), np.uint8))
    bucket.write("arrays.npz", packed.getvalue())
    assert open_source("arrays:gs://bucket/arrays.npz", "train").count == 5


def test_seals_keep_a_run_of_a_bucket(bucket, run, monkeypatch):
    kept = []
    monkeypatch.setattr(seals, "merge", lambda name, records, key: kept.extend(records))
    seals.record(RUN)
    assert kept[0]["method"] == "simclr" and kept[0]["config"] == "a=b,c"
    plan = next(plan for plan in seals.read("plans.jsonl") if plan["method"] == "mae")
    bucket.write("plan.json", json.dumps([plan]).encode())
    seals.record("gs://bucket/plan.json")
    assert kept[1]["method"] == "mae"


def test_a_profile_goes_to_the_bucket(bucket):
    said = []
    trace = profiling.Profile((1, 1), "gs://bucket/profile", said.append)
    trace.before_step(1, ())
    trace.close()
    assert any(name.startswith("profile/plugins/profile/") for name in bucket.names()) and "gs://bucket" in said[0]


def test_numbers_that_do_not_arrive_are_told_once_and_kept(bucket, capsys):
    writer = metrics.Writer("gs://bucket/numbers", total=10)
    with bucket.refusing("numbers"):
        for step in (1, 2):
            writer.update(step, {"loss": 1.0})
            writer.flush()
    assert capsys.readouterr().out.count("metrics can't be written to gs://bucket/numbers") == 1
    writer.close()
    assert [line["step"] for line in lines(bucket, "numbers/metrics.jsonl")] == [1, 2]


@pytest.mark.parametrize(
    "address, remedy",
    {"hdfs://a/b": "gs://BUCKET/PATH", "memory://a": "gs://BUCKET/PATH", "s3://a/b": "s3fs",
     "file:///tmp/a": "a folder of this machine"}.items(),
)  # fmt: skip
def test_other_addresses_are_refused_in_a_sentence(address, remedy, run, capfd):
    look = ["visualize", f"--run={RUN}", "--count=2"]
    calls = (
        ["evaluate", f"--run={address}"],
        [*look, f"--out={address}"], [*look, f"--images={address}"],
        ["visualize", f"--weights={address}"], ["seals", f"--record={address}"],
        flags("gs://bucket/never", 1, f"--config.data.name=folder:{address}"),
    )  # fmt: skip
    assert command.main(flags(address, 1)) == 2 and "gs://BUCKET/PATH" in capfd.readouterr().err
    for call in calls:
        assert command.main(call) == 2, call
        err = capfd.readouterr().err
        assert remedy in err and err.count("\n") == 1


def test_a_bucket_that_is_refused_is_told_in_a_sentence(bucket, capfd):
    with bucket.refusing("closed"):
        assert command.main(flags("gs://bucket/closed/run", 1)) == 2
    said = capfd.readouterr().err
    assert "no permission, HTTP 403" in said and "choose another --workdir" in said and said.count("\n") == 1
