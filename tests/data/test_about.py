"""One line, whatever is in the names."""

import numpy as np

from jax_ssl.data.about import About, digest, join_names, printable, source_line


def test_one_line_of_all_that_there_is_to_say():
    about = About("folder:A", "B/train", "B/val", ("a note",), ("24 .tif", "1 loose file"))
    assert source_line(about, 36, 3, 1) == (
        "folder:A: 36 training images of 3 classes in B/train, 1 test image in B/val; a note; "
        "left out: 24 .tif, 1 loose file"
    )
    why = About("x", notes=("no labels, as nobody gave any", "a note"))
    assert source_line(why, 1, 0, None) == "x: 1 training image without labels, as nobody gave any; a note"


def test_names_of_any_bytes_stay_on_one_line():
    assert printable("a\udcff\nb\tcafé 猫") == "a\\xff\\nb\\tcafé 猫"


def test_a_long_list_is_cut():
    assert join_names("abc") == "a, b, c" and join_names(map(str, range(8))) == "0, 1, 2, 3, 4, 5, and 2 more"


def test_digests_tell_apart():
    made = {digest("ab", "c"), digest("a", "bc"), digest(np.arange(3)), digest(np.arange(3)[::-1]), digest("\udcff")}
    assert len(made) == 5 and all(len(one) == 16 for one in made)
