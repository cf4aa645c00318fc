"""`visualize` from a run's folder or a file to pictures; what can't be drawn is one sentence and exit code 2."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from jax_ssl import __main__ as command
from jax_ssl.errors import UserError
from jax_ssl.study import gallery
from jax_ssl.visualize import pictures
from tests.runs import save_run


@pytest.fixture
def folder(tmp_path):
    """Images of several sizes, in two folders."""
    random = np.random.default_rng(0)
    for number in range(5):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (40 + number, 60, 3), np.uint8)).save(path)
    return tmp_path / "images"


def visualize(capsys, *arguments):
    """Runs the verb and returns what it drew: {name: pixels}."""
    assert command.main(["visualize", *arguments]) == 0
    found = {}
    for line in capsys.readouterr().out.splitlines():
        if line.startswith(("left out", "not drawn")):
            continue
        sentence, _, path = line.partition("  ->  ")
        assert ": " in sentence and sentence.endswith(" images")
        found[path.rpartition("/")[2]] = np.asarray(Image.open(path).convert("RGB"))
    return found


def test_a_run_is_drawn_with_all_that_fits_and_twice_the_same(runs, tmp_path, capsys):
    run = runs("mae")
    drawn = visualize(capsys, f"--run={run}", "--count=4")
    kinds = ("views", "attention", "pca", "correspondences", "reconstruction")
    assert set(drawn) == {f"{kind}_student.png" for kind in kinds}
    assert {path.name for path in (run / "pictures").iterdir()} == set(drawn)
    assert all(picture.std() > 10 and picture.shape[1] > 500 for picture in drawn.values())
    # The saved state is the first one, so all that is restored must look like what is made anew.
    again = visualize(capsys, f"--run={run}", "--count=4", "--weights=untrained", f"--out={tmp_path}")
    for kind in kinds:
        np.testing.assert_array_equal(drawn[f"{kind}_student.png"], again[f"{kind}_untrained.png"])


def test_holes_painted_by_two_runs_are_one_page(runs, tmp_path, capsys):
    run, alone = runs("context_encoder"), save_run(tmp_path / "L2", "context_encoder", "--config.method.share=1.0")
    drawn = visualize(capsys, f"--run={run}", f"--beside={alone}", "--count=4", f"--out={tmp_path}/pictures")
    assert set(drawn) == {"beside_holes.png"} and drawn["beside_holes.png"].shape[1] > 4 * 96


@pytest.mark.parametrize("arguments, remedy", [
    (["--run=simclr", "--beside=simclr"], "such as context_encoder"),
    (["--run=simclr", "--beside=simclr", "--what=pca"], "--what is not for --beside"),
    (["--beside=simclr"], "give the first one as --run"),
])  # fmt: skip
def test_what_can_not_stand_side_by_side_is_refused(arguments, remedy, runs, capsys):
    filled = [argument.replace("=simclr", f"={runs('simclr')}") for argument in arguments]
    assert command.main(["visualize", *filled]) == 2
    assert remedy in capsys.readouterr().err


def test_any_folder_at_any_size_that_the_patch_divides(runs, folder, tmp_path, capsys):
    what = "--what=attention,reconstruction"
    drawn = visualize(capsys, f"--run={runs('mae')}", what, f"--images={folder}", "--size=48", f"--out={tmp_path}")
    rows = 5 * (pictures.cell(4) + pictures.GAP) - pictures.GAP + pictures.TITLE
    assert len(drawn) == 2 and drawn["attention_student.png"].shape[0] == rows


def test_a_teacher_has_features_and_the_student_shows_the_method(runs, capsys):
    drawn = visualize(capsys, f"--run={runs('moco')}", "--weights=teacher")
    assert set(drawn) == {"views_teacher.png", "pca_teacher.png", "correspondences_teacher.png"}
    drawn = visualize(capsys, f"--run={runs('moco')}", "--what=shown")
    assert set(drawn) == {"shown_query_key_similarity_student.png", "shown_query_queue_similarity_student.png"}


def test_a_file_of_weights_is_drawn_without_a_run(request, folder, tmp_path, capsys):
    file = request.config.rootpath / "tests" / "golden" / "dino_vit.pth"
    drawn = visualize(capsys, f"--weights={file}", f"--images={folder}", f"--out={tmp_path}", "--size=16x24")
    assert set(drawn) == {f"{kind}_dino_vit.png" for kind in ("attention", "pca", "correspondences")}
    for kind, columns in (("attention", 4), ("pca", 3)):
        height, width = round(pictures.cell(columns) * 16 / 24), pictures.cell(columns)
        page = 5 * (height + pictures.GAP) + pictures.TITLE, columns * (width + pictures.GAP)
        assert drawn[f"{kind}_dino_vit.png"].shape[:2] == (page[0] - pictures.GAP, page[1] - pictures.GAP)


MISTAKES = {
    "an unknown picture": ("mae", ["--what=atention"], "choose from views, attention"),
    "a size that the patch does not divide": ("mae", ["--size=30"], "take 24"),
    "a height that it does not divide": ("mae", ["--size=30x32"], "take 24x32"),
    "a picture of a method that is no square": ("mae", ["--what=views", "--size=24x32"], "are of squares"),
    "no pixels": ("mae", ["--size=0"], "at least 1"),
    "no images": ("mae", ["--count=0"], "at least 1"),
    "a missing folder": ("mae", ["--images=/nowhere/at/all"], "/nowhere/at/all"),
    "a file beside a run": ("mae", ["--weights=weights.pth"], "--weights=FILE alone"),
    "a teacher that there is not": ("mae", ["--weights=teacher"], "mae, without a teacher"),
    "a method's picture of its teacher": ("moco", ["--what=shown", "--weights=teacher"], "of its student"),
    "one image for a correspondence": ("mae", ["--what=correspondences", "--count=1"], "raise --count"),
    "attention without a class token": ("moco", ["--what=attention"], "model.pool='cls'"),
    "a method that hides nothing": ("moco", ["--what=reconstruction"], "moco has no method.mask_ratio"),
    "a key that there is not": ("mae", ["--config.nonsense=1"], "no config key 'nonsense'"),
    "another network": ("mae", ["--config.model.width=64"], "t be changed in a saved run"),
    "another network by the method": ("moco", ["--config.method.queue=128"], "t be changed in a saved run"),
    "an override of a file": (None, ["--weights=x.pth", "--config.seed=1"], "without --run has no config to change"),
    "no images to speak of, one patch": ("mae", ["--what=pca", "--count=1", "--size=8"], "raise --size or --count"),
    "more pixels than there is memory": ("mae", ["--size=200000"], "GiB of memory"),
    "more pairs of patches than there is memory": ("mae", ["--size=8192"], "GiB of memory"),
    "groups of more images than there are": ("moco", ["--what=shown", "--count=3"], "norm_groups=4"),
    "a folder that can't be made": ("mae", ["--out=/dev/null/pictures"], "another --out"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_sentence_and_exit_code_two(mistake, runs, capsys):
    name, flags, remedy = MISTAKES[mistake]
    assert command.main(["visualize", *([f"--run={runs(name)}"] if name else []), *flags]) == 2
    said = capsys.readouterr()
    assert remedy in said.err and said.err.count("\n") == 1 and not said.out


def test_what_does_not_fit_is_left_out_and_said(runs, tmp_path, capsys):
    arguments = ["visualize", f"--run={runs('moco')}", f"--out={tmp_path}"]
    assert command.main([*arguments, "--count=1"]) == 0
    printed = capsys.readouterr().out
    assert "not drawn, as they do not fit: attention, correspondences, reconstruction, shown (" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"views_student.png", "pca_student.png"}


def test_overrides_count(runs, tmp_path, capsys):
    drawn = visualize(capsys, f"--run={runs('mae')}", "--what=pca", f"--out={tmp_path}", "--config.data.eval_size=16",
                      "--config.data.name=synthetic:20")  # fmt: skip
    plain = visualize(capsys, f"--run={runs('mae')}", "--what=pca", f"--out={tmp_path}")
    assert (drawn["pca_student.png"] != plain["pca_student.png"]).any()


def test_features_that_are_not_finite_are_no_picture(runs):
    subject = gallery.open_subject(str(runs("mae")), "student", None, None, 2)
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), subject.encode.variables)
    subject = subject._replace(encode=dataclasses.replace(subject.encode, variables=broken))
    for name in ("pca", "attention", "correspondences"):
        with pytest.raises(UserError, match="not finite"):
            gallery.PICTURES[name].draw(subject, None)


def test_neither_a_run_nor_a_file_and_no_run_at_all(tmp_path, capsys):
    assert command.main(["visualize"]) == 2 and "Give --run=FOLDER" in capsys.readouterr().err
    assert command.main(["visualize", f"--run={tmp_path}"]) == 2 and "no run folder" in capsys.readouterr().err


def test_an_unreadable_image_is_named_and_left_out(runs, folder, capsys):
    (folder / "a" / "0.jpg").write_bytes(b"no image")
    assert command.main(["visualize", f"--run={runs('mae')}", f"--images={folder}", "--what=views"]) == 0
    assert "left out, as it can't be read: a/0.jpg" in capsys.readouterr().out


def test_a_file_has_no_method_to_show(request, folder, capsys):
    file = request.config.rootpath / "tests" / "golden" / "dino_vit.pth"
    for what in ("views", "reconstruction", "shown"):
        assert command.main(["visualize", f"--weights={file}", f"--images={folder}", f"--what={what}"]) == 2
        assert "give --run=FOLDER" in capsys.readouterr().err


def test_what_is_restored_has_the_structure_of_a_new_state(runs):
    subject = gallery.open_subject(str(runs("mae")), "student", None, None, 1)
    assert subject.state.extra == {"stats": {}} and int(subject.state.step) == 3
