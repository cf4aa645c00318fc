"""Names of folders, however they are written."""

import pytest

from jax_ssl.data.folder_names import OTHER, TEST, TRAIN, VALIDATION, is_system_folder, role, words_of


def test_names_are_taken_apart():
    assert words_of("train_setA2") == ["train", "set", "a"]
    assert words_of("ILSVRC2012_img_val") == ["ilsvrc", "img", "val"]
    assert words_of("Validação") == ["validacao"] and words_of("42") == []


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
    assert all(map(is_system_folder, left))
    assert not any(map(is_system_folder, ["recycle", "trash", "system", "cat"]))
