"""A cache costs nothing: where there is no home folder, it is somewhere else."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from jax_ssl.data import cache


def test_without_a_home_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_SSL_CACHE", raising=False)
    monkeypatch.setattr(cache.os.path, "expanduser", lambda path: path)  # as for a user id without an entry
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    cache.save("key", numbers=np.arange(3))
    assert cache.load("key")["numbers"].tolist() == [0, 1, 2] and cache.folder().parent == tmp_path


@pytest.mark.parametrize("values", [["a", "café", "\udcff"], {"a/": {".tif": 3}}, []])
def test_packed_values_come_back(values):
    assert cache.unpack(cache.pack(values)) == values


def test_an_entry_of_another_meaning_is_not_read(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path))
    cache.save("key", numbers=np.arange(3))
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    assert cache.load("key") is None


def test_large_arrays_that_were_not_used_for_longest_go_first_and_the_disk_is_not_filled(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "MOST", 2700)
    make = lambda number: cache.load_or_make(f"set {number}", lambda: np.full(1000, number, np.uint8))
    for number, age in ((0, 200), (1, 300)):
        make(number)
        file = max(tmp_path.glob("*.npy"), key=lambda path: path.stat().st_mtime)
        os.utime(file, (1e9 - age, 1e9 - age))
    make(1)  # used again, so that the other one is older
    make(2)
    kept = lambda number: cache.entry_path(f"{cache.VERSION} set {number}", ".npy").exists()
    assert [kept(number) for number in range(3)] == [False, True, True]
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=1900))
    assert make(3).tolist() == [3] * 1000 and not kept(3)


def test_a_cache_that_can_only_be_read_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path))
    cache.load_or_make("set", lambda: np.arange(3))

    def refuse(path):
        raise PermissionError(path)

    monkeypatch.setattr(cache.os, "utime", refuse)
    assert cache.load_or_make("set", lambda: 1 / 0).tolist() == [0, 1, 2]
