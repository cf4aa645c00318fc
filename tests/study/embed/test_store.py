import shutil

import numpy as np
import pytest

from jax_ssl.study.embed.store import PARTS, Plan, Store

PLAN = Plan("w", "i", count=10, width=3, batch=4, size=32)


def batch(start, stop):
    numbers = np.arange(start, stop)
    return (
        np.outer(numbers, [1, 2, 3]).astype(np.float32), numbers != 5,
        [bytes([n]) * (n % 3) for n in numbers]
    )  # fmt: skip


def fill(store):
    for start in range(store.done, 10, 4):
        store.add(*batch(start, min(start + 4, 10)))
    return {name: (store.folder / name).read_bytes() for name in PARTS}


@pytest.fixture
def whole(tmp_path):
    return fill(Store(tmp_path / "whole", PLAN))


@pytest.mark.parametrize("cut", range(4))
@pytest.mark.parametrize("bytes_lost", (0, 1, 13))
def test_a_store_that_was_killed_ends_with_the_same_bytes(tmp_path, whole, cut, bytes_lost):
    store = Store(tmp_path / "killed", PLAN)
    store.add(*batch(0, 4))
    store.add(*batch(4, 8))
    file = store.folder / PARTS[cut]
    file.write_bytes(file.read_bytes()[: -bytes_lost or None])
    again = Store(tmp_path / "killed", PLAN)
    assert again.done in ((0, 4) if bytes_lost else (8,))
    assert fill(again) == whole


def test_what_was_added_comes_back(tmp_path):
    store = Store(tmp_path / "s", PLAN)
    fill(store)
    rows = Store(tmp_path / "s", PLAN).rows()
    assert rows.read.tolist() == [n != 5 for n in range(10)]
    np.testing.assert_array_equal(rows.features[7], [7, 14, 21])
    assert not rows.features[5].any() and rows.thumbs[7] == b"\x07" and rows.thumbs[8] == b"\x08\x08"
    store.remove()
    assert not store.folder.exists()


def test_another_plan_begins_anew(tmp_path):
    fill(Store(tmp_path / "s", PLAN))
    assert Store(tmp_path / "s", PLAN).done == 10
    other = Store(tmp_path / "s", PLAN._replace(weights="other"))
    assert other.done == 0 and other.replaced and not Store(tmp_path / "s", other.plan).replaced


def test_a_kill_while_it_is_deleted_leaves_nothing_that_counts(tmp_path, monkeypatch):
    store = Store(tmp_path / "s", PLAN)
    fill(store)
    monkeypatch.setattr(shutil, "rmtree", lambda folder, **_: (folder / PARTS[0]).unlink())
    store.remove()
    monkeypatch.undo()
    assert Store(tmp_path / "s", PLAN).done == 0
