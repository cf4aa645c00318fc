import re

import jax
import numpy as np
import pytest

from jax_ssl.errors import UserError
from jax_ssl.evaluate import knn
from jax_ssl.sharding import batched, make_mesh, replicated


def data(train=203, test=37, width=16, classes=7, seed=0):
    random = np.random.RandomState(seed)
    centres = random.randn(classes, width)
    labels = random.randint(0, classes, train + test)
    x = (centres[labels] + 1.5 * random.randn(train + test, width)).astype(np.float32)
    return x[:train], labels[:train], x[train:], labels[train:]


def oracle(train, train_labels, test, k, temperature, classes):
    """The definition, one query at a time, in double precision."""
    train = train.astype(np.float64) / np.linalg.norm(train, axis=1, keepdims=True)
    found = []
    for query in test.astype(np.float64):
        similarity = train @ (query / np.linalg.norm(query))
        votes = np.zeros(classes)
        for i in np.argsort(-similarity)[:k]:
            votes[train_labels[i]] += np.exp(similarity[i] / temperature)
        found.append(votes.argmax())
    return np.array(found)


def test_accuracies_are_those_of_dino(request):
    g = np.load(request.config.rootpath / "tests" / "golden" / "knn.npz")
    ks, classes = tuple(g["k"].tolist()), int(g["train_labels"].max()) + 1
    found = knn.accuracies(
        g["train"], g["train_labels"], g["test"], g["test_labels"], ks, float(g["temperature"]), classes, bank_block=64
    )
    assert found == pytest.approx(dict(zip(ks, g["top1"] / 100)))


@pytest.mark.parametrize("query_block, bank_block", [(1024, 4096), (37, 203), (10, 50), (7, 13), (1, 1)])
@pytest.mark.parametrize("k", [1, 20, 203])
def test_classify_is_the_definition_for_any_block(k, query_block, bank_block):
    train, labels, test, _ = data()
    found = knn.classify(train, labels, test, k, 0.07, 7, query_block=query_block, bank_block=bank_block)
    np.testing.assert_array_equal(found, oracle(train, labels, test, k, 0.07, 7))


def test_every_k_at_once_equals_each_alone():
    train, labels, test, test_labels = data()
    found = knn.accuracies(train, labels, test, test_labels, (5, 50, 200), 0.07, 7, bank_block=64)
    for k, value in found.items():
        assert value == np.mean(oracle(train, labels, test, k, 0.07, 7) == test_labels)


def test_a_tiny_temperature_is_the_nearest_neighbour_and_does_not_overflow():
    train, labels, test, _ = data()
    found = knn.classify(train, labels, test, 50, 1e-4, 7)
    np.testing.assert_array_equal(found, oracle(train, labels, test, 1, 0.07, 7))


def test_the_length_of_features_does_not_matter():
    train, labels, test, _ = data()
    lengths = np.random.RandomState(1).uniform(0.1, 10, (len(train), 1)).astype(np.float32)
    expected = knn.classify(train, labels, test, 20, 0.07, 7)
    np.testing.assert_array_equal(knn.classify(train * lengths, labels, test * 7, 20, 0.07, 7), expected)


def test_padding_never_votes():
    # All similarities are negative: a padded row of zeros would be nearer than any real one.
    train, test = -np.ones((5, 3), np.float32), np.ones((3, 3), np.float32)
    found = knn.classify(train, np.full(5, 2), test, 5, 0.07, 3, query_block=2, bank_block=4)
    np.testing.assert_array_equal(found, 2)


def test_every_device_searches_for_its_own_queries():
    mesh = make_mesh()
    with jax.set_mesh(mesh):
        shapes = [((np.zeros((160, 20), np.float32), np.zeros((160, 20), np.int32)), batched(mesh)),
                  (np.zeros((160, 16), np.float32), batched(mesh)), (np.zeros((128, 16), np.float32), replicated(mesh))]
        arrays = [jax.device_put(*shape) for shape in shapes]
        program = knn._merge.lower(*arrays, 0, 0, k=20, query_block=20).compile().as_text()
    assert "f32[20,148]" in program  # a device compares its 160 / 8 queries with 128 + 20 others
    assert not re.search("all-gather|all-reduce|all-to-all|collective-permute", program)


def test_one_device_finds_what_eight_do(monkeypatch):
    train, labels, test, _ = data(train=500, test=161)
    eight = knn.nearest(train, test, 20, query_block=40, bank_block=128)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    one = knn.nearest(train, test, 20, query_block=40, bank_block=128)
    np.testing.assert_array_equal(one[1], eight[1])
    np.testing.assert_allclose(one[0], eight[0], atol=1e-6)


def test_neighbours_are_the_largest_cosines_and_among_equals_the_earlier_rows():
    train, _, test, _ = data()
    train[150] = train[20]  # another block
    seen = []
    cosines, rows = knn.nearest(train, test, 203, bank_block=64, done=seen.append)
    assert seen == [64, 64, 64, 11]
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    truth = unit(test.astype(np.float64)) @ unit(train.astype(np.float64)).T
    np.testing.assert_allclose(np.take_along_axis(truth, rows, 1), cosines, atol=1e-6)
    assert (np.diff(cosines, axis=1) <= 0).all() and (np.sort(rows, axis=1) == np.arange(203)).all()
    assert (np.argmax(rows == 20, axis=1) < np.argmax(rows == 150, axis=1)).all()


def test_the_bank_may_be_a_file(tmp_path):
    train, labels, test, _ = data()
    np.save(tmp_path / "bank.npy", train)
    bank = np.load(tmp_path / "bank.npy", mmap_mode="r")
    found = knn.classify(bank, labels, test, 20, 0.07, 7, bank_block=64)
    np.testing.assert_array_equal(found, knn.classify(train, labels, test, 20, 0.07, 7))


def test_more_neighbours_than_features_is_refused():
    train, labels, test, _ = data(train=19)
    with pytest.raises(UserError, match="k = 20 .* 19"):
        knn.classify(train, labels, test, 20, 0.07, 7)


def test_similarities_are_multiplied_at_highest_precision():
    train, _, test, _ = data(test=40)
    best = np.full((40, 5), -np.inf, np.float32), np.zeros((40, 5), np.int32)
    with jax.set_mesh(make_mesh()):
        text = str(jax.make_jaxpr(lambda *x: knn._merge(*x, 0, 0, k=5, query_block=5))(best, test, train))
    assert text.count("dot_general[") == text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 1


def test_labels_may_be_any_ids():
    train, labels, test, test_labels = data()
    ids = np.random.RandomState(3).randint(0, 10**9, 7)  # one by one they would ask for 4 GB of votes a query
    found = knn.accuracies(train, ids[labels], test, ids[test_labels], (5, 20))
    assert found == knn.accuracies(train, labels, test, test_labels, (5, 20), classes=7)


def test_nothing_to_tell_apart_is_a_sentence():
    train, labels, test, test_labels = data()
    with pytest.raises(UserError, match="all 203 labelled images are of one class"):
        knn.accuracies(train, 0 * labels, test, test_labels, (5,))
    with pytest.raises(UserError, match="203 and 0"):
        knn.accuracies(train, labels, test[:0], test_labels[:0], (5,))
    with pytest.raises(UserError, match="the same feature for all 203 images"):
        knn.accuracies(0 * train + 1, labels, test, test_labels, (5,))
