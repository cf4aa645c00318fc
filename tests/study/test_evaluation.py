"""`evaluate` of files and of any images: what is said, what is recorded, and a task that fails ends itself alone."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jax_ssl import __main__ as command
from jax_ssl.run import lock, results
from jax_ssl.study import measure
from jax_ssl.weights import load

FEW = ["--config.data.probe.train=40", "--config.data.probe.test=20"]
FILE = Path(__file__).parents[1] / "golden" / "dino_vit.pth"


def evaluate(capsys, *flags, code=0):
    assert command.main(["evaluate", *flags]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def test_a_file_is_measured_beside_pixels_and_new_weights(tmp_path, capsys):
    out = evaluate(capsys, f"--weights={FILE}", f"--out={tmp_path}", "--task=knn,fewshot", *FEW, "--size=32",
                   "--config.fewshot.shots=(1,)")  # fmt: skip
    assert f"{FILE}: ViT of 0.0" in out and "to test on, of embedded" in out
    found = results.read_results(tmp_path)
    assert {r["weights"] for r in found} == {"pixels", "untrained", "dino_vit"}
    assert {(r["task"], r["protocol"]["name"]) for r in found} == {("knn", "knn"), ("fewshot", "fewshot")}
    assert all(r["step"] == 0 and r["protocol"]["size"] == 32 for r in found)
    assert {r["metric"] for r in found if r["task"] == "fewshot"} == {"top1_1_shot", "top1_1_shot_std"}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").iterdir()}
    evaluate(capsys, f"--weights={FILE}", f"--out={tmp_path}", "--task=knn", "--which=student", *FEW, "--size=32")
    again = results.read_results(tmp_path)[len(found) :]
    values = lambda records: [r["value"] for r in records if r["task"] == "knn" and r["weights"] == "dino_vit"]
    assert values(again) == values(found)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "features").iterdir()}


def test_images_that_are_no_squares_give_the_features_of_load_at_that_size(tmp_path, capsys):
    images = np.random.RandomState(0).randint(0, 256, (20, 40, 50, 3)).astype(np.uint8)
    labels = np.arange(20) % 2
    np.savez(tmp_path / "few.npz", x_train=images, y_train=labels, x_test=images[:8], y_test=labels[:8])
    flags = [f"--weights={FILE}", f"--out={tmp_path}/out", f"--data=arrays:{tmp_path}/few.npz", "--size=32x48"]
    evaluate(capsys, *flags, "--task=knn", "--config.data.eval_crop=1.0", "--which=pixels,student")
    found = results.read_results(tmp_path / "out")
    assert all(record["protocol"]["size"] == [32, 48] for record in found)
    facts = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "out" / "features").glob("*.json")}
    key = next(key for key, fact in facts.items() if fact["weights"] == "dino_vit" and fact["split"] == "test")
    assert facts[key]["size"] == [32, 48]
    # 40 x 50 pixels cover 32 x 48 as 38 x 48; the middle 32 rows are left.
    cut = [np.asarray(Image.fromarray(x).resize((48, 38), Image.Resampling.BICUBIC))[3:35] for x in images[:8]]
    encode = load(FILE)
    expected = encode(encode.normalise(np.stack(cut))).pooled
    np.testing.assert_allclose(np.load(tmp_path / "out" / "features" / f"{key}.npy"), expected, rtol=0, atol=1e-5)


def test_other_images_and_all_of_them(runs, tmp_path, capsys):
    random = np.random.RandomState(0)
    images, labels = random.randint(0, 256, (30, 40, 40, 3)).astype(np.uint8), np.arange(30) % 3
    np.savez(tmp_path / "few.npz", x_train=images, y_train=labels, x_test=images[:9], y_test=labels[:9])
    flags = [f"--data=arrays:{tmp_path}/few.npz", f"--out={tmp_path}/out", "--which=student", "--feature_depth=1"]
    out = evaluate(capsys, f"--run={runs('simclr')}", "--task=knn,logreg", *flags)
    assert "measured on 30 labelled images of 3 classes to learn from and 9 to test on, of " in out
    knn, logreg = results.read_results(tmp_path / "out")[0], results.read_results(tmp_path / "out")[-1]
    assert knn["data"].endswith("few.npz") and knn["protocol"]["feature_depth"] == 1
    assert logreg["task"] == "logreg" and logreg["protocol"]["selection"].startswith("a tenth")
    assert not (runs("simclr") / "features").exists()


def test_a_task_that_fails_ends_itself_alone(tmp_path, capsys):
    assert command.main(["evaluate", f"--weights={FILE}", f"--out={tmp_path}", "--task=fewshot,pretext,knn",
                         "--which=student", "--config.fewshot.shots=(50,)", *FEW]) == 2  # fmt: skip
    said = capsys.readouterr()
    assert "fewshot is not measured: Few-shot kNN draws 50" in said.out and "pretext is not measured" in said.out
    assert said.err.startswith("jax_ssl: Not measured: fewshot, pretext.") and said.err.count("\n") == 1
    assert {r["task"] for r in results.read_results(tmp_path)} == {"knn"}


def test_a_run_that_still_trains_is_measured_at_its_checkpoint(runs, capsys, monkeypatch):
    monkeypatch.setattr("jax_ssl.evaluate.cost.SECONDS", 0.01)
    run = runs("simclr")
    own = lock.describe_self(str(run.resolve()))
    own |= {"pid": os.getppid(), "started": lock.start_of(os.getppid())}
    (run / lock.NAME).write_text(json.dumps(own))
    out = evaluate(capsys, f"--run={run}", "--task=knn,cost", "--which=student", "--config.cost.rounds=1", *FEW)
    assert "still trains: it is measured at its last good checkpoint, of step 3" in out
    assert "metrics.jsonl has no kNN, as the run had no probe" in out
    (run / lock.NAME).write_text(json.dumps(own | {"pid": 2**22 + 1}))
    assert not lock.in_use(run)
    (run / lock.NAME).unlink()


def test_weights_that_do_not_fit_the_config_are_a_sentence(runs, tmp_path, capsys):
    import shutil

    copy = shutil.copytree(runs("mae"), tmp_path / "run")
    stored = json.loads((copy / "config.json").read_text())
    stored["model"]["width"] = 64
    (copy / "config.json").write_text(json.dumps(stored))
    err = evaluate(capsys, f"--run={copy}", "--task=knn", *FEW, code=2)
    assert "does not fit its config.json" in err and "of a wrong shape" in err and err.count("\n") == 1


MISTAKES = {
    "nothing to measure": ([], "--run=FOLDER of a run, or --weights=FILE alone"),
    "a file that is not there": (["--weights=nowhere.pth"], "nowhere.pth"),
    "networks without a run": (["--weights=student"], "--run=FOLDER of a run"),
    "a run and a file": (["--run=.", f"--weights={FILE}"], "are two networks: give one of them"),
    "networks twice": (["--run=.", "--weights=student", "--which=teacher"], "leave --weights out"),
    "a task that is no ruler": ([f"--weights={FILE}", "--task=agreement"], "choose from knn, linear"),
    "an option of another task": ([f"--weights={FILE}", "--config.fewshot.shots=(1,)"], "is an option of --task=few"),
    "an option that there is not": (
        [f"--weights={FILE}", "--task=fewshot", "--config.fewshot.shot=1"], "did you mean config.fewshot.shots?"
    ),
    "a size that the patch does not divide": ([f"--weights={FILE}", "--size=33"], "not a multiple of the network's"),
    "a width that it does not divide": ([f"--weights={FILE}", "--size=32x33"], "take 32."),
    "a size of words": ([f"--weights={FILE}", "--size=32x"], "'32x' is no size in pixels: give a side"),
    "a ruler of squares": ([f"--weights={FILE}", "--size=32x48", "--task=robustness"], "--size=32x48 is none"),
    "fine-tuning on squares": ([f"--weights={FILE}", "--size=32x48", "--task=finetune"], "--size=32x48 is none"),
    "a depth that there is not": ([f"--weights={FILE}", "--feature_depth=99"], "feature_depth=99"),
    "images that are not there": ([f"--weights={FILE}", "--data=folder:/no/where"], "/no/where"),
    "a puzzle of a file": ([f"--weights={FILE}", "--task=pretext"], "a file has no method"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_sentence_and_exit_code_two(mistake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags, remedy = MISTAKES[mistake]
    err = evaluate(capsys, *flags, code=2)
    assert remedy in err and err.count("\n") == 1


def test_without_labels_a_sentence_says_what_is_needed(tmp_path, capsys):
    np.savez(tmp_path / "few.npz", images=np.random.RandomState(0).randint(0, 256, (30, 32, 32, 3)).astype(np.uint8))
    flags = [f"--weights={FILE}", f"--data=arrays:{tmp_path}/few.npz", f"--out={tmp_path}/out"]
    assert "There are no labels to measure with: name a labelled set by --data" in evaluate(capsys, *flags, code=2)


def test_mean_and_std_are_those_of_the_weights(tmp_path):
    said = []
    changed = ["--config.data.mean=(0.5,0.5,0.5)"]
    networks = measure.open_file(str(FILE), str(tmp_path), overrides=changed, say=said.append)
    assert len(said) == 1 and "data.mean=(0.5, 0.5, 0.5) is not used" in said[0]
    assert tuple(networks.settings.data.mean) == tuple(networks.encode.mean)
