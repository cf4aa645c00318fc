"""Names of folders, however they are written."""

import pytest

from jax_ssl.data.words import OTHER, TEST, TRAIN, VALIDATION, is_left_by_a_system, parts_of, role


def test_names_are_taken_apart():
    assert parts_of("train_setA2") == ["train", "set", "a"]
    assert parts_of("ILSVRC2012_img_val") == ["ilsvrc", "img", "val"]
    assert parts_of("Validação") == ["validacao"] and parts_of("42") == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Training_Set", (TRAIN, "")),
        ("val2017", (VALIDATION, "")),
        ("hold-out", (TEST, "")),
        ("TestData", (TEST, "")),
        ("testset", (TEST, "")),
        ("seg_train", (TRAIN, "seg")),
        ("unlabelled", (OTHER, "")),
        ("テスト", (TEST, "")),
        ("train_or_test", None),
        ("rain", None),
        ("trainer", None),
        ("constrain", None),
        ("7", None),
    ],
)
def test_what_a_folder_is_for(name, found):
    assert role(name) == found


def test_what_systems_leave():
    left = ["@eaDir", "__MACOSX", "$RECYCLE.BIN", "lost+found", ".Trashes", "#recycle", "System Volume Information"]
    assert all(map(is_left_by_a_system, left))
    assert not any(map(is_left_by_a_system, ["recycle", "trash", "system", "cat"]))
