"""Batches are pure functions of (config, step): in every mode, on any number of hosts, whatever is broken."""

import functools
import itertools
import subprocess
import sys

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image, ImageFilter

from jax_ssl.data import decode, disk, pipeline, resident
from jax_ssl.data.broken import max_broken
from jax_ssl.data.pipeline import balanced_records, centre_crop, open_data
from jax_ssl.data.sources import open_source
from jax_ssl.data.split import open_labelled
from jax_ssl.errors import DataError, LostError, UserError
from jax_ssl.run.progress import Counter
from jax_ssl.views import device as on_device
from tests.pictures import some_image

MODES = ("device", "hybrid", "host")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path_factory.mktemp("cache")))


def recipe(**changes):
    plain = dict(
        count=1, size=16, scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3), interpolation="bicubic", flip=0.5,
        jitter=(0.4, 0.4, 0.4, 0.1), jitter_probability=0.8, grey=0.2, grey_first=False, blur=0.5,
        blur_sigma=(0.1, 2.0), solarize=0.2,
    )  # fmt: skip
    return plain | changes


def settings(name="synthetic:20", augment="hybrid", **data):
    """A config with what the pipeline reads: two different views."""
    crops = dict(views=[recipe(), recipe(blur=0.1)])
    data = dict(
        name=name, split="train", dir="", augment=augment, crops=crops, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3),
        eval_size=16, eval_crop=0.875, workers=2, broken_limit=0.01, probe=dict(name="", train=50, test=20),
        reduce_jpegs=False, resident_size=0,
    ) | data  # fmt: skip
    return ConfigDict(dict(seed=3, batch_size=8, data=data))


LOCAL = dict(views=[recipe()], local=[recipe(size=8)])


def take(batches, count):
    return list(itertools.islice(batches, count))


def flat(batch):
    """{path: array} of a raw batch."""
    if isinstance(batch, dict):
        return {(key, *path): leaf for key, value in batch.items() for path, leaf in flat(value).items()}
    return {(): batch}


def assert_equal(one, other):
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    for path in one:
        assert one[path].dtype == other[path].dtype and np.array_equal(one[path], other[path]), path


def write_images(folder, count, broken=(), size=(30, 24)):
    """A folder of pictures of their own colours, some of them not pictures."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        path = folder / f"{number:03d}.png"
        if number in broken:
            path.write_text("no picture")
        else:
            Image.new("RGB", (size[0] + number % 3, size[1]), (number, 2 * number % 256, 99)).save(path)
    return f"folder:{folder}"


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_sees_what_an_uninterrupted_one_would_have_seen(mode):
    data = open_data(settings(augment=mode))
    straight = take(data.batches(0), 9)
    resumed = take(open_data(settings(augment=mode)).batches(7), 2)
    assert_equal(straight[7], resumed[0])
    assert_equal(straight[8], resumed[1])
    assert any(not np.array_equal(leaf, flat(straight[8])[path]) for path, leaf in flat(straight[7]).items())


@pytest.mark.parametrize("mode", MODES)
def test_two_hosts_share_the_batch_of_one(mode):
    (whole,) = take(open_data(settings(augment=mode)).batches(3), 1)
    shares = [take(open_data(settings(augment=mode), host, 2).batches(3), 1)[0] for host in range(2)]
    for path, leaf in flat(whole).items():
        assert np.array_equal(np.concatenate([flat(share)[path] for share in shares]), leaf), path


@pytest.mark.parametrize("mode", MODES)
def test_the_example_tells_the_shape_of_the_global_batch(mode):
    data = open_data(settings(augment=mode, crops=LOCAL), 0, 2)
    (share,) = take(data.batches(0), 1)
    example = flat(data.example)
    assert example.keys() == flat(share).keys()
    for path, leaf in flat(share).items():
        assert example[path].shape == (2 * len(leaf), *leaf.shape[1:]) and example[path].dtype == leaf.dtype, path
    assert (data.resident is not None) == (mode == "device")


def ready(config):
    """(data, raw batch, what the device makes of it) for step 2."""
    data = open_data(config)
    (raw,) = take(data.batches(2), 1)
    prepare = on_device.prepare(pipeline.recipes(config), config.data.mean, config.data.std)
    return data, raw, {group: np.asarray(views) for group, views in prepare(raw, data.resident).items()}


def assert_alike(one, other):
    """A pixel that rounds to another 1/255 may double in jitter, turn in hue or cross solarize's threshold: few do."""
    for group in one:
        far = np.abs(one[group] - other[group]).max(-1) > 6 / 255 / 0.2
        assert one[group].shape == other[group].shape and far.mean() < 0.01


def test_modes_make_the_same_views():
    made = {mode: ready(settings(augment=mode, crops=LOCAL)) for mode in MODES}
    assert_alike(made["device"][2], made["hybrid"][2])
    assert_alike(made["device"][2], made["host"][2])
    data, raw, _ = made["device"]
    for group, hybrid in made["hybrid"][1].items():  # before colour: crop and flip
        box, flip = raw[group]["box"][:, 0], raw[group]["flip"][:, 0]
        size = LOCAL[group][0]["size"]
        device = np.asarray(on_device.crop(data.resident[raw["index"]], box, flip, size, "bicubic")) * 255
        assert np.abs(device - hybrid["image"][:, 0]).max() <= 1.001


def test_host_and_hybrid_make_the_same_views_of_files_of_many_sizes(tmp_path):
    name = write_images(tmp_path / "set", 12)
    assert_alike(ready(settings(name, "hybrid"))[2], ready(settings(name, "host"))[2])


@pytest.mark.parametrize("mode", ["hybrid", "host"])
def test_large_jpegs_can_be_decoded_smaller_and_give_nearly_the_same_views(tmp_path, mode, monkeypatch):
    loaded, decoded = [], decode._decode
    monkeypatch.setattr(decode, "_decode", lambda *args: loaded.append(decoded(*args)) or loaded[-1])
    for number in range(8):
        blurred = Image.fromarray(some_image(200, 267, number)).filter(ImageFilter.GaussianBlur(4))
        blurred.save(tmp_path / f"{number}.jpg", quality=95)
    whole, smaller = (ready(settings(f"folder:{tmp_path}", mode, reduce_jpegs=reduce))[2] for reduce in (False, True))
    assert {267} < {image.width for image in loaded} <= {267, 67, 34}
    assert np.abs(whole["views"] - smaller["views"]).mean() < 2 / 255 / 0.2


def test_device_mode_needs_neither_tensorflow_nor_jax():
    program = f"""
import sys
from ml_collections import ConfigDict
from jax_ssl.data.pipeline import open_data
from jax_ssl.data.split import open_labelled
config = ConfigDict({settings("embedded", "device").to_dict()!r})
data = open_data(config)
batches = data.batches(0)
assert next(batches)["index"].shape == (8,) and data.resident.shape == (5000, 32, 32, 3)
assert open_labelled(config).read().test_images.shape == (20, 16, 16, 3)
assert not {{"tensorflow", "jax"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stderr == ""


def test_tensorflow_starts_without_noise():
    program = f"""
from ml_collections import ConfigDict
from jax_ssl.data.pipeline import open_data
print(next(open_data(ConfigDict({settings("synthetic:20").to_dict()!r})).batches(0))["views"]["image"].shape)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(8, 2, 16, 16, 3)\n", "")


def test_every_image_once_an_epoch_and_epochs_differ(tmp_path):
    data = open_data(settings(write_images(tmp_path / "set", 16), crops=dict(views=[recipe(scale=(1.0, 1.0))])))
    colours = [batch["views"]["image"][:, 0, 8, 8, 0].tolist() for batch in take(data.batches(0), 4)]
    epochs = [colours[0] + colours[1], colours[2] + colours[3]]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(16)) and epochs[0] != epochs[1]


def test_a_batch_larger_than_the_source_reaches_over_epochs(tmp_path):
    (batch,) = take(open_data(settings(write_images(tmp_path / "set", 3))).batches(0), 1)
    assert sorted(batch["views"]["image"][:6, 0, 8, 8, 0]) == [0, 0, 1, 1, 2, 2]


def test_a_broken_image_is_replaced_by_the_next_good_one_counted_and_named(tmp_path):
    name, lines = write_images(tmp_path / "set", 16, broken=(4, 5, 15)), []
    config = settings(name, broken_limit=0.2, crops=dict(views=[recipe(scale=(1.0, 1.0))]))
    data = open_data(config, log=lines.append)
    straight = take(data.batches(0), 4)
    colours = np.concatenate([batch["views"]["image"][:, 0, 8, 8, 0] for batch in straight])
    assert sorted(colours[:16]) == sorted(colours[16:]) == sorted([*range(4), 6, 6, *range(6, 15), 0])
    assert set(data.broken) == {"004.png", "005.png", "015.png"}
    assert len(lines) == 3 and "skipped an unreadable image (3 so far)" in lines[2] and "not a jpeg" in lines[0]
    assert_equal(straight[2], take(open_data(config).batches(2), 1)[0])


@pytest.mark.parametrize("mode", ["hybrid", "host"])
def test_too_many_broken_images_end_the_run_with_the_list(tmp_path, mode):
    data = open_data(settings(write_images(tmp_path / "set", 30, broken=range(25)), mode, broken_limit=0.1))
    with pytest.raises(DataError, match=r"of the 30 images of folder:.* data.broken_limit=0.1 .*0\d\d.png: not a jpeg"):
        take(data.batches(0), 20)


def test_a_share_is_the_limit_and_a_handful_in_small_sets():
    assert [max_broken(count, 0.01) for count in (1, 2, 3, 5, 7, 45, 100, 1000)] == [0, 0, 1, 2, 3, 3, 3, 10]
    assert max_broken(1000, 0.0) == 0 and max_broken(10, 1.0) == 9


def test_three_broken_images_of_a_hundred_are_a_handful(tmp_path):
    take(open_data(settings(write_images(tmp_path / "a", 100, broken=(3, 60, 80)))).batches(0), 13)
    with pytest.raises(DataError, match="4 of the 100"):
        take(open_data(settings(write_images(tmp_path / "b", 100, broken=(3, 50, 60, 80)))).batches(0), 13)
    with pytest.raises(DataError, match="1 of the 100"):
        take(open_data(settings(write_images(tmp_path / "c", 100, broken=(3,)), broken_limit=0.0)).batches(0), 13)


@pytest.mark.parametrize("mode", ["hybrid", "host"])
def test_a_disk_that_fails_is_told_as_what_it_is(tmp_path, mode, monkeypatch):
    name = write_images(tmp_path / "set", 20)
    monkeypatch.setattr(disk, "WAITS", (0.0,))
    data = open_data(settings(name, mode))
    monkeypatch.setattr(disk, "_bytes", lambda path: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(LostError, match="Input/output error"):
        take(data.batches(0), 1)
    assert not data.broken


def test_a_disk_that_fails_for_a_while_changes_nothing(tmp_path, monkeypatch):
    name = write_images(tmp_path / "set", 20)
    (expected,) = take(open_data(settings(name)).batches(0), 1)
    monkeypatch.setattr(disk, "WAITS", (0.0, 0.0))
    failed, read = set(), disk._bytes

    def fails_once(path):
        if path not in failed:
            failed.add(path)
            raise OSError(5, "Input/output error")
        return read(path)

    monkeypatch.setattr(disk, "_bytes", fails_once)
    data = open_data(settings(name))
    assert_equal(take(data.batches(0), 1)[0], expected)
    assert failed and not data.broken


def test_the_probe_waits_for_the_disk_as_well(tmp_path, monkeypatch):
    for label in "ab":
        write_images(tmp_path / label, 10)
    monkeypatch.setattr(disk, "WAITS", (0.0,))
    monkeypatch.setattr(disk, "_bytes", lambda path: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(LostError, match="Input/output error"):
        open_probe(settings(f"folder:{tmp_path}"))


def test_a_source_with_no_good_image_ends(tmp_path):
    data = open_data(settings(write_images(tmp_path / "set", 3, broken=range(3)), broken_limit=1.0))
    with pytest.raises(DataError, match="3 of the 3 images"):
        take(data.batches(0), 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(augment="gpu"), "choose 'host', 'hybrid' or 'device'"),
        (dict(crops=dict(small=[recipe()])), "give 'views'"),
        (dict(crops=dict(views=[])), "no recipe"),
        (dict(crops={}), "give 'views'"),
        (dict(name="nothing"), "not a known kind of source"),
    ],
)
def test_mistakes_are_answered_with_the_remedy(change, told):
    with pytest.raises(UserError, match=told):
        open_data(settings(**change))


def test_device_mode_wants_images_of_one_size_that_fit(tmp_path, monkeypatch):
    name = write_images(tmp_path / "set", 3)
    with pytest.raises(UserError, match="has 30x24 and 3[12]x24: set data.augment='hybrid', or data.resident_size"):
        open_data(settings(name, "device"))
    said = []
    monkeypatch.setattr(resident, "LIMIT", 3 * 20 * 20 * 3 - 1)
    with pytest.raises(UserError, match="the 3 of .* would take 0 GB"):
        open_data(settings(name, "device", resident_size=20))
    monkeypatch.setattr(resident, "LIMIT", 3 * 20 * 20 * 3)
    counted = functools.partial(Counter, say=said.append, now=itertools.count(step=30).__next__)
    assert open_data(settings(name, "device", resident_size=20), progress=counted).resident.shape == (3, 20, 20, 3)
    assert len(said) == 2 and said[1].startswith("decoding all images, once: 2 of 3 images")


def test_files_of_one_size_are_decoded_once_for_the_device(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    for number in range(6):
        Image.fromarray(some_image(24, 30, number)).save(tmp_path / "set" / f"{number}.png")
    (tmp_path / "set" / "3.png").write_text("no picture")
    name = f"folder:{tmp_path / 'set'}"
    device, hybrid = (ready(settings(name, mode, broken_limit=0.5)) for mode in ("device", "hybrid"))
    assert_alike(device[2], hybrid[2])
    assert len(device[0].broken) == 1 and (device[0].resident[3] == device[0].resident[4]).all()
    monkeypatch.setattr(decode, "_decode", None)  # from the cache: nothing but the first record is looked at
    images = settings(name, "device", broken_limit=0.5)
    monkeypatch.setattr(resident, "skipping_reader", lambda *args: lambda record: Image.new("RGB", (30, 24)))
    assert (open_data(images).resident == device[0].resident).all()
    Image.new("RGB", (30, 24)).save(tmp_path / "set" / "5.png")  # another file: decoded again
    assert (open_data(images).resident == 0).all()


def test_hosts_share_the_batch_evenly():
    with pytest.raises(UserError, match="multiple of the 3 hosts"):
        open_data(settings(), 0, 3)


# The probe set


def open_probe(config, log=None):
    found = open_labelled(config, log)
    return found and found.read()


def test_labelled_images_are_balanced_and_at_evaluation_size():
    probe = open_probe(settings("embedded", eval_size=32, eval_crop=1.0))
    assert probe.train_images.shape == (50, 32, 32, 3) and probe.train_images.dtype == np.uint8
    assert np.bincount(probe.train_labels).tolist() == [5] * 10 and np.bincount(probe.test_labels).tolist() == [2] * 10
    assert probe.classes == 10 and probe.train_labels.dtype == np.int32
    test = open_source("embedded", "test")
    first = balanced_records(test.labels, 20)
    assert np.array_equal(probe.test_images, test.images[first])  # 32 pixels stay as they are


def test_all_of_them_when_the_number_is_zero():
    probe = open_probe(settings(probe=dict(name="", train=0, test=0)))
    assert (len(probe.train_images), len(probe.test_images)) == (1000, 200)


def test_unlabelled_training_images_with_and_without_a_labelled_probe_set(tmp_path):
    name = write_images(tmp_path / "set", 8)
    assert open_data(settings(name)).source.labels is None
    assert open_probe(settings(name)) is None
    probe = open_probe(settings(name, probe=dict(name="embedded", train=10, test=10)))
    assert probe.train_images.shape == (10, 16, 16, 3) and probe.classes == 10
    with pytest.raises(UserError, match="has no labels"):
        open_probe(settings(probe=dict(name=name, train=10, test=10)))


def test_a_broken_probe_image_is_left_out_and_named(tmp_path):
    for folder, broken in (("train/a", (7,)), ("train/b", ()), ("test/a", ()), ("test/b", ())):
        (tmp_path / folder).mkdir(parents=True)
        write_images(tmp_path / folder, 20, broken)
    lines, everything = [], dict(name="", train=0, test=0)
    config = settings(f"folder:{tmp_path}", probe=everything)
    probe = open_probe(config, lines.append)
    assert (len(probe.train_images), len(probe.test_images)) == (39, 40)
    assert np.bincount(probe.train_labels).tolist() == [19, 20]
    assert len(lines) == 1 and "train/a/007.png" in lines[0]
    assert probe.about.endswith("40 training images of 2 classes in train, 40 test images in test")
    with pytest.raises(DataError, match="1 of the 80 images of .*train/a/007.png"):
        open_probe(settings(f"folder:{tmp_path}", broken_limit=0.0, probe=everything))


def test_both_splits_are_judged_together(tmp_path):
    for folder, count, broken in (("train/a", 60, ()), ("train/b", 60, ()), ("test/a", 3, (0, 2)), ("test/b", 3, (1,))):
        (tmp_path / folder).mkdir(parents=True)
        write_images(tmp_path / folder, count, broken)
    probe = open_probe(settings(f"folder:{tmp_path}", probe=dict(name="", train=0, test=0)))
    assert (len(probe.train_images), len(probe.test_images)) == (120, 3)


def test_no_good_test_image_is_no_traceback(tmp_path):
    for folder, count, broken in (("train/a", 9, ()), ("train/b", 9, ()), ("test/a", 1, (0,)), ("test/b", 1, (0,))):
        (tmp_path / folder).mkdir(parents=True)
        write_images(tmp_path / folder, count, broken)
    assert open_probe(settings(f"folder:{tmp_path}")).test_images.shape == (0, 16, 16, 3)


def test_one_image_a_folder_has_no_probe(tmp_path):
    for label in "abcdef":
        write_images(tmp_path / label, 1)
    assert open_probe(settings(f"folder:{tmp_path}")) is None
    with pytest.raises(UserError, match="has no labels.*as each class has one image"):
        open_probe(settings(probe=dict(name=f"folder:{tmp_path}", train=10, test=10)))


def test_who_trains_on_the_test_images_is_measured_on_the_others():
    probe, usual = (open_probe(settings("embedded", split=split)) for split in ("test", "train"))
    assert (probe.split, usual.split, usual.note) == ("train", "test", "")
    assert "data.split=test" in probe.note and "the split train" in probe.note
    assert open_data(settings("embedded", split="test")).source.about.endswith(
        "trained on its split test, 1,000 images"
    )
    trained, others = open_source("embedded", "test"), open_source("embedded", "train")
    assert np.array_equal(probe.train_labels, trained.labels[balanced_records(trained.labels, 50)])
    assert np.array_equal(probe.test_labels, others.labels[balanced_records(others.labels, 20)])
    other_set = open_probe(settings("embedded", split="test", probe=dict(name="synthetic", train=50, test=20)))
    assert other_set.split == "test" and not other_set.note


def test_a_split_that_stands_in_for_test_is_seen_by_what_it_holds(tmp_path):
    for folder in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / folder).mkdir(parents=True)
        write_images(tmp_path / folder, 4)
    assert open_probe(settings(f"folder:{tmp_path}", split="val")).split == "train"


def test_balanced_takes_turns():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 0])
    assert balanced_records(labels, 4).tolist() == [0, 1, 4, 6]
    assert balanced_records(labels, 6).tolist() == [0, 1, 2, 4, 5, 6]
    assert balanced_records(labels, 0).tolist() == balanced_records(labels, 99).tolist() == list(range(8))


@pytest.mark.parametrize(("height", "width"), [(30, 50), (50, 30), (16, 16), (9, 40), (1000, 3)])
def test_centre_has_the_size_and_the_middle(height, width):
    row, column = np.mgrid[:height, :width]
    image = np.stack([row * 255 // height, column * 255 // width, row * 0], -1).astype(np.uint8)
    view = centre_crop(Image.fromarray(image), 16, 0.875)
    assert view.shape == (16, 16, 3)
    assert np.abs(view[..., :2].mean((0, 1)) - image[..., :2].mean((0, 1))).max() < 12


def resized_first(image, size, part):
    """`centre_crop` as it would be without cutting first."""
    width, height = image.size
    short = round(size / part)
    new_height, new_width = (max(size, round(side * short / min(height, width))) for side in (height, width))
    image = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    top, left = (new_height - size) // 2, (new_width - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size))).astype(int)


@pytest.mark.parametrize("size", [(32, 1.0), (224, 0.875)])
def test_cut_before_resizing_changes_no_ordinary_picture(size):
    for sides in ((500, 375), (375, 500), (48, 48), (333, 90), (1000, 900)):
        image = Image.fromarray(some_image(*sides))
        assert np.array_equal(centre_crop(image, *size), resized_first(image, *size))
    for sides in ((500, 60), (60, 500)):
        image = Image.fromarray(some_image(*sides))
        assert (
            np.abs(centre_crop(image, *size) - resized_first(image, *size)).mean() < 5
        )  # moved by half a pixel at most


@pytest.mark.parametrize("sides", [(60000, 1), (1, 60000)])
def test_a_very_long_picture_takes_no_memory(sides, monkeypatch):
    resize = Image.Image.resize

    def small(image, sides, *arguments):
        assert max(sides) <= 4 * 256
        return resize(image, sides, *arguments)

    monkeypatch.setattr(Image.Image, "resize", small)
    for size in (224, (112, 224)):
        view = centre_crop(Image.new("RGB", sides, (9, 8, 7)), size, 0.875)
        assert (view == (9, 8, 7)).all() and view.shape[:2] == (224 if size == 224 else 112, 224)
