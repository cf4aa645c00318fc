"""Prepared sets of tensorflow-datasets, made here without a network, read by record number in every way there is."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jax_ssl.data import disk, source
from jax_ssl.data import tfds as reader
from jax_ssl.data.decode import BrokenImage
from jax_ssl.data.sources import open_source
from jax_ssl.errors import LostError, UserError

COUNT = 24


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(number, height=6, width=8):
    """uint8 (H, W, 3) that tells its number in every channel."""
    return np.random.RandomState(number).randint(0, 256, (height, width, 3)).astype(np.uint8)


def prepare(folder, name, splits, shape=(6, 8, 3), file_format="tfrecord", **features):
    """Stores {split: [example]} as a set of tensorflow-datasets."""
    features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(num_classes=3)} | features
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        data_dir=folder,
        features=tfds.features.FeaturesDict({key: value for key, value in features.items() if value is not None}),
        split_datasets={split: list(enumerate(examples)) for split, examples in splits.items()},
        file_format=file_format,
    )


def examples(count, label=lambda number: number % 3, first=0):
    return [{"image": picture(first + number), "label": label(number)} for number in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sets of one size in both file formats, and one without a test split."""
    folder = str(tmp_path_factory.mktemp("tfds"))
    splits = {"train": examples(COUNT), "test": examples(6, first=100)}
    prepare(folder, "small", splits)
    prepare(folder, "small_array_record", splits, file_format="array_record")
    prepare(folder, "only_train", {"train": examples(30)})
    unlabelled = examples(4, label=lambda number: -1, first=200)
    prepare(folder, "blind", {"train": examples(3), "test": unlabelled, "validation": examples(5, first=300)})
    return folder


def by_hand(source):
    """All images of a source by `read`, and its labels."""
    return np.stack([np.asarray(source.read(record)) for record in range(source.count)]), source.labels


@pytest.mark.parametrize("name", ["small", "small_array_record"])
def test_in_memory_and_by_record_give_the_same_images(folder, name, monkeypatch):
    whole = open_source(f"tfds:{name}", "train", folder)
    monkeypatch.setattr(reader, "IN_MEMORY", 0)
    single = open_source(f"tfds:{name}", "train", folder)
    assert whole.images.shape == (COUNT, 6, 8, 3) and single.images is None
    images, labels = by_hand(single)
    assert np.array_equal(whole.images, images) and np.array_equal(whole.labels, labels)
    assert whole.classes == single.classes == 3
    # And they are what was stored, each with its own label.
    number = [next(n for n in range(COUNT) if np.array_equal(picture(n), image)) for image in images]
    assert sorted(number) == list(range(COUNT)) and (np.array(number) % 3 == labels).all()


def test_the_order_and_the_images_are_those_of_tensorflow_datasets(folder):
    source = open_source("tfds:small", "test", folder)
    config = tfds.ReadConfig(shuffle_seed=None)
    official = list(tfds.load("small", split="test", data_dir=folder, read_config=config, shuffle_files=False))
    assert np.array_equal(source.images, [example["image"].numpy() for example in official])
    assert source.labels.tolist() == [int(example["label"]) for example in official]


def test_scanned_once_and_decoded_once(folder, monkeypatch):
    first = open_source("tfds:small", "train", folder)
    monkeypatch.setattr(reader, "_scan", lambda *_: pytest.fail("scanned again"))
    monkeypatch.setattr(reader, "_all_images", lambda *_: pytest.fail("decoded again"))
    assert np.array_equal(open_source("tfds:small", "train", folder).images, first.images)


def test_no_tensorflow_is_loaded(folder):
    program = f"""
import sys
from jax_ssl.data.sources import open_source
for split in "train", "test":
    open_source("tfds:small", split, {folder!r})
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_images_of_many_sizes_grey_and_without_labels(tmp_path):
    images = [picture(number, 5 + number % 3, 4)[..., :1] for number in range(8)]
    splits = {"train": [{"image": image, "text": "x" * 300} for image in images]}
    prepare(str(tmp_path), "varied", splits, (None, None, 1), label=None, text=tfds.features.Text())
    source = open_source("tfds:varied", "train", str(tmp_path))
    assert source.images is None and source.labels is None and source.count == 8
    assert sorted(source.read(record).tobytes() for record in range(8)) == sorted(
        np.repeat(image, 3, -1).tobytes() for image in images
    )
    with pytest.raises(UserError, match="data.probe.name"):
        open_source("tfds:varied", "test", str(tmp_path))


def test_validation_stands_in_for_a_test_without_labels(folder):
    assert open_source("tfds:blind", "test", folder).count == 5
    assert open_source("tfds:blind", "validation", folder).count == 5
    assert open_source("tfds:blind", "train", folder).count == 3


def test_a_tenth_of_train_stands_in_for_no_test_at_all(folder):
    train, test = (open_source("tfds:only_train", split, folder) for split in ("train", "test"))
    assert (train.count, test.count) == (27, 3) and np.bincount(test.labels).tolist() == [1, 1, 1]
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}


def test_a_broken_image_is_met_alone(tmp_path):
    prepare(str(tmp_path), "spoiled", {"train": examples(6), "test": examples(2)})
    (file,) = (tmp_path / "spoiled/1.0.0").glob("*train*")
    data = file.read_bytes()
    place = data.index(b"IDAT")
    file.write_bytes(data[:place] + b"\0" * 20 + data[place + 20 :])
    source = open_source("tfds:spoiled", "train", str(tmp_path))
    assert source.images is None and source.count == 6
    broken = []
    for record in range(6):
        try:
            source.read(record)
        except BrokenImage as error:
            broken.append(error.name)
    assert broken == ["tfds:spoiled/train[0]"]


def test_a_file_cut_short_is_the_users_to_repair(tmp_path):
    prepare(str(tmp_path), "short", {"train": examples(6), "test": examples(2)})
    (file,) = (tmp_path / "short/1.0.0").glob("*train*")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="is damaged .*ends inside a record.* prepare the set again"):
        open_source("tfds:short", "train", str(tmp_path))


def test_a_tfds_set_says_what_it_is(folder):
    source = open_source("tfds:small", "test", folder)
    assert source.about == "tfds:small: 24 training images of 3 classes, 6 test images"
    assert source.class_names == ("0", "1", "2") and len(source.identity) == 16
    held = open_source("tfds:only_train", "train", folder)
    assert held.about == "tfds:only_train: 27 training images of 3 classes, 3 test images, held out of each class"
    assert open_source("tfds:blind", "train", folder).about == (
        "tfds:blind: 3 training images of 3 classes, 5 test images in validation; left out: split test"
    )
    assert open_source("tfds:small", "train", folder).identity != source.identity


@pytest.mark.parametrize("name", ["small", "small_array_record"])
def test_a_mount_that_blinks_is_waited_for(folder, name, monkeypatch):
    monkeypatch.setattr(reader, "IN_MEMORY", 0)
    source = open_source(f"tfds:{name}", "train", folder)
    away, waited = os.path.join(folder, "away"), []
    os.rename(os.path.join(folder, name), away)
    monkeypatch.setattr(disk, "WAITS", (0.0, 0.0))
    with pytest.raises(LostError, match="can't be read"):
        source.read(3)

    def comes_back(seconds):
        waited.append(seconds)
        os.rename(away, os.path.join(folder, name))

    monkeypatch.setattr(disk.time, "sleep", comes_back)
    assert source.read(3).size == (8, 6) and len(waited) == 1


def test_mistakes_are_answered_with_the_remedy(folder, tmp_path):
    with pytest.raises(UserError, match="did you mean tfds:cifar10"):
        open_source("tfds:cifar1", "train", folder)
    with pytest.raises(UserError, match="not prepared in .*set data.dir.*download_and_prepare"):
        open_source("tfds:mnist", "train", str(tmp_path))
    with pytest.raises(UserError, match="has no split 'extra': choose one of test, train"):
        open_source("tfds:small", "extra", folder)
    prepare(str(tmp_path), "words", {"train": [{"text": "x", "label": 0}]}, image=None, text=tfds.features.Text())
    with pytest.raises(UserError, match="no image feature.* label, text"):
        open_source("tfds:words", "train", str(tmp_path))


def test_start_up_noise_is_off_for_whoever_loads_tensorflow_later():
    assert all(os.environ[name] == value for name, value in source.QUIET.items())
