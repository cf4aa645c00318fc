"""A cache costs nothing: where there is no home folder, it is somewhere else."""

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
