"""Images to measure a run on: who waits for them is told, and what can't be read is named."""

import tracemalloc

import numpy as np
import pytest

from jax_ssl.data import split
from jax_ssl.data.broken import Broken
from jax_ssl.data.source import in_memory
from jax_ssl.errors import DataError, UserError
from jax_ssl.run import probe, progress
from tests.data.test_split import folder, settings


def found(*more):
    return probe.find(settings(*more, "eval_size=32"))[0]


def test_progress_and_broken_images_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(progress.Counter, "EVERY", 0.0)
    said, alive = [], []
    splits = found(folder(tmp_path, broken=(4,)), "broken_limit=0.2")
    read = probe.read(splits, said.append, lambda: alive.append(1))
    assert len(read.train_images) == len(read.train_labels) and len(alive) == 2
    assert len(read.train_images) + len(read.test_images) == 23
    assert sum("04.png" in line for line in said) == 1
    assert any("reading the images to measure on: 22 of 24 images" in line for line in said), said


def test_memory_holds_the_images_once(monkeypatch):
    monkeypatch.setattr(split, "AT_ONCE", 4)
    images = np.zeros((120, 32, 32, 3), np.uint8)
    data = settings("eval_size=32", "workers=1").data
    part = split.Split(in_memory("x", images, None), np.arange(120), data, Broken("x", 120, 0.0))
    tracemalloc.start()
    read = part.read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read.shape == images.shape and peak < 1.6 * read.nbytes


def test_too_many_broken_images_end_no_run_but_a_set_that_was_named_does(tmp_path):
    name, said = folder(tmp_path, broken=range(6)), []
    assert probe.read_or_say(settings(name), found(name), said.append, lambda: None) is None
    assert said[-1].startswith("nothing is measured while it trains: ") and "can't be read" in said[-1]
    named = f"probe.{name}"
    with pytest.raises(DataError, match="can't be read"):
        probe.read_or_say(settings(named), found(named), said.append, lambda: None)


def test_why_there_are_none(tmp_path):
    np.savez(tmp_path / "few.npz", images=np.zeros((9, 8, 8, 3), np.uint8))
    few = f"arrays:{tmp_path}/few.npz"
    assert probe.find(settings(f"name={few}")) == (
        None, "the images have no labels; data.probe.name can name a labelled set")  # fmt: skip
    with pytest.raises(UserError, match="has no labels"):
        probe.find(settings(f"probe.name={few}"))
