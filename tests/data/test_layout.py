"""What folders are taken for: the layouts of well-known sets and of strangers, and the line that is said of each."""

import pytest

from jax_ssl.data.about import About, source_line
from jax_ssl.data.layout import layout_of
from jax_ssl.errors import UserError


def names(*specs):
    """a:3 -> a/0.png, a/1.png, a/2.png."""
    pairs = [spec.rpartition(":") for spec in specs]
    return tuple(sorted(f"{place}/{n}.png".lstrip("/") for place, _, count in pairs for n in range(int(count))))


def classes(place, count, labels=("c0", "c1", "c2")):
    return [f"{place}/{label}:{count}".lstrip("/") for label in labels]


def told(*specs):
    layout = layout_of(names(*specs), "folder:A")
    train, test = layout.train, layout.test
    about = About("folder:A", train.place, test.place if test else "", layout.notes, layout.left_out)
    known = len(set(train.classes or ()))
    return source_line(about, len(train.names), known, len(test.names) if test else None).removeprefix("folder:A: ")


WAYS = [
    ("train", "val"), ("Train", "Test"), ("training", "validation"), ("train_set", "test_set"), ("TRAIN", "EVAL"),
    ("trainset", "testset"), ("train2017", "val2017"), ("Training", "Testing"), ("tr", "te"), ("seg_train", "seg_test"),
    ("train-images", "dev"), ("imgs_train", "imgs_valid"), ("TrainData", "HoldOut"), ("treino", "validação"),
    ("训练集", "测试集"), ("ILSVRC2012_img_train", "ILSVRC2012_img_val"), ("trainval", "test"),
]  # fmt: skip


@pytest.mark.parametrize(("train", "test"), WAYS)
@pytest.mark.parametrize("above", ["", "B/", "B/C/"])
def test_splits_in_any_words(train, test, above):
    said = told(*classes(above + train, 12), *classes(above + test, 4))
    assert said == f"36 training images of 3 classes in {above}{train}, 12 test images in {above}{test}"


SETS = {
    "three splits": (
        [*classes("train", 9), *classes("val", 2), *classes("test", 3)],
        "27 training images of 3 classes in train, 9 test images in test; left out: 6 images in val",
    ),
    "ImageNet, its validation images unsorted": (
        [*classes("train", 9), "val:9"],
        "27 training images of 3 classes in train; left out: 9 images in val, which has no class folders",
    ),
    "Tiny ImageNet": (
        [*(f"train/{c}/images:9" for c in "abc"), "val/images:5", "test/images:5"],
        "27 training images of 3 classes in train; left out: 5 images in test, which has no class folders, "
        "5 images in val, which has no class folders",
    ),
    "cats and dogs of Kaggle": (
        ["train:20", "test1:9"],
        "20 training images without labels in train; left out: 9 images in test1, which has no class folders",
    ),
    "Caltech-101": (classes("101_ObjectCategories", 9), "27 training images of 3 classes in 101_ObjectCategories"),
    "Oxford pets": (
        ["images:9", "annotations/trimaps:9"],
        "9 training images without labels in images; left out: 9 images in annotations",
    ),
    "masks in each class": (
        [*(f"{c}/images:9" for c in "abc"), *(f"{c}/masks:9" for c in "abc")],
        "27 training images of 3 classes; left out: 27 images in masks",
    ),
    "MVTec": (
        ["x/train/good:9", "x/test/good:3", "x/test/bad:3", "x/ground_truth/bad:3"],
        "9 training images without labels in x/train/good, 6 test images in x/test; "
        "left out: 3 images in x/ground_truth",
    ),
    "FER-2013": (
        [*classes("Training", 9), *classes("PublicTest", 3), *classes("PrivateTest", 3)],
        "27 training images of 3 classes in Training, 9 test images in PrivateTest; left out: 9 images in PublicTest",
    ),
    "Omniglot": (
        [*classes("images_background", 9), *classes("images_evaluation", 3, ("d0", "d1"))],
        "27 training images of 3 classes in images_background; "
        "left out: 6 images in images_evaluation, none of whose classes has training images",
    ),
    "class first": (
        ["a/train:9", "b/train:9", "a/val:3", "b/val:3"],
        "18 training images of 2 classes in */train, 6 test images in */validation",
    ),
    "beside a few others": (
        [*classes("B/train", 12), *classes("B/val", 4), "docs:2"],
        "36 training images of 3 classes in B/train, 12 test images in B/val; left out: 2 images beside B",
    ),
    "a train set alone": (classes("B/train", 9), "27 training images of 3 classes in B/train"),
    "vehicles": (
        ["car:9", "train:9", "bus:9"],
        "27 training images of 3 classes; train is taken for a class, as there is no test folder",
    ),
    "valid and invalid": (["valid:9", "invalid:9"], "18 training images of 2 classes"),
    "land": (["forest:9", "development:9"], "18 training images of 2 classes"),
    "languages": (["tr:9", "de:9", "en:9"], "27 training images of 3 classes"),
    "train and what has no labels": (
        [*classes("train", 9), "unlabelled:9"],
        "27 training images of 3 classes in train; left out: 9 images in unlabelled",
    ),
    "classes beside their test folder": (
        [*classes("", 9), *classes("test", 3)],
        "27 training images of 3 classes, 9 test images in test",
    ),
    "classes beside a test folder without classes": (
        [*classes("", 9), "test:7"],
        "27 training images of 3 classes; left out: 7 images in test, no class",
    ),
    "classes beside images without labels": (
        [*classes("", 9), "unlabeled:30"],
        "27 training images of 3 classes; left out: 30 images in unlabeled, no class",
    ),
    "test classes that training has not": (
        [*classes("train", 9), "val/c0:3", "val/z:3"],
        "27 training images of 3 classes in train, 6 test images in val; 1 class with test images but no training "
        "images (z); 2 classes with training images but no test images (c1, c2)",
    ),
    "test images of one class": (
        [*classes("train", 9, "ab"), "val/a:3"],
        "18 training images of 2 classes in train, 3 test images in val; "
        "1 class with training images but no test images (b)",
    ),
    "other classes altogether": (
        [*classes("train", 9), "val/a:3", "val/b:3"],
        "27 training images of 3 classes in train; "
        "left out: 6 images in val, none of whose classes has training images",
    ),
    "a loose picture": (
        [*classes("", 12), ":1"],
        "36 training images of 3 classes; left out: 1 loose file",
    ),
    "many loose pictures": (
        [*classes("", 3), ":5"],
        "14 training images without labels, as 5 of 14 images lie beside the folders (c0, c1, c2)",
    ),
    "folders that may be anything": (
        [*classes("fold1", 9), *classes("fold2", 3)],
        "36 training images without labels, as fold1, fold2 hold folders of the same names (c0, c1, c2), and either "
        "may be the classes: name one of them in the path",
    ),
    "pieces": (
        ["part1:9", "part2:9"],
        "18 training images without labels, as part1, part2 look like pieces of one set",
    ),
    "two spellings, two cases and a copy": (
        ["caf\u00e9:9", "cafe\u0301:3", "b:4", "Cat:2", "cat:2", "b (2):3"],
        "23 training images of 5 classes; 2 folders called caf\u00e9 are one class; 'Cat' and 'cat' are 2 classes; "
        "'b (2)' looks like a copy of 'b', and both are classes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SETS)
def test_one_line_says_what_was_understood(kind):
    specs, line = SETS[kind]
    assert told(*specs) == line


TWO_SETS = [*classes("m/train", 9), *classes("m/test", 3), *classes("n/train", 9), *classes("n/test", 3)]
REFUSED = {
    "several sets": (TWO_SETS, "m"),
    "splits beside much else": ([*classes("B/train", 12), *classes("B/val", 4), "other:30"], "B"),
    "a train set beside much else": ([*classes("train", 9), "more:9"], "train"),
    "nothing to train on": ([*classes("test", 9), *classes("val", 3)], "test"),
    "a train set of an unknown name": ([*classes("stuff", 9), *classes("test", 3)], "stuff"),
    "two train sets": (["trainA:9", "trainB:9", "testA:3", "testB:3"], "trainA"),
    "images beside their small copies": (["images/a:9", "images/b:9", "resized:18"], "images"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_not_be_understood_is_refused_with_the_path_to_give(kind):
    specs, path = REFUSED[kind]
    with pytest.raises(UserError, match=f"can't be understood safely: give folder:A/{path}\\b") as caught:
        layout_of(names(*specs), "folder:A")
    assert "\n" not in str(caught.value)
