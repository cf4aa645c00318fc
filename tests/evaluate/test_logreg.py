"""Logistic regression against scikit-learn in double precision, on one device and on eight."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jax_ssl.errors import UserError
from jax_ssl.evaluate import logreg
from jax_ssl.evaluate.case import Case, Side
from jax_ssl.sharding import make_mesh
from tests.evaluate.test_knn import data

GRID = (1e-3, 1.0, 1e3)


def standardised(x, like):
    return (x - like.mean(0)) / np.sqrt(like.var(0) + 1e-6)


def fitted(x, labels, devices):
    with jax.set_mesh(make_mesh(devices=jax.devices()[:devices])):
        placed = logreg.place(x, labels, lambda block: block)
        fits = logreg.fit(placed, np.ones(len(x), bool), GRID, 7, 500)
        return jax.device_get(fits), logreg.score(fits, placed, np.ones(len(x), bool))


@pytest.fixture(scope="module")
def problem():
    x, labels, y, truth = data(train=500, test=200)
    return standardised(x, x).astype(np.float32), labels, standardised(y, x).astype(np.float32), truth


def objective(kernel, bias, x, labels, c):
    scores = x.astype(np.float64) @ kernel + bias
    scores -= scores.max(1, keepdims=True)
    loss = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(x)), labels]
    return c * loss.sum() + (kernel**2).sum() / 2


def test_objective_and_accuracy_are_those_of_scikit_learn(problem):
    x, labels, y, truth = problem
    found, _ = fitted(x, labels, 8)
    for number, c in enumerate(GRID):
        model = LogisticRegression(C=c, tol=1e-10, max_iter=5000).fit(x.astype(np.float64), labels)
        best = objective(model.coef_.T, model.intercept_, x, labels, c)
        kernel, bias = found.weights[number, :-1], found.weights[number, -1]
        ours = objective(kernel, bias, x, labels, c)
        assert ours == pytest.approx(best, rel=1e-4) and found.iterations[number] < 500
        predicted = np.argmax(y @ kernel + bias, axis=1)
        assert abs(np.mean(predicted == truth) - model.score(y, truth)) <= 1e-3


def test_eight_devices_fit_what_one_does_and_blocks_do_not_matter(problem, monkeypatch):
    x, labels, *_ = problem
    _, (right, losses) = fitted(x, labels, 8)
    monkeypatch.setattr(logreg, "BLOCK", 120)
    _, (again, same) = fitted(x, labels, 1)
    np.testing.assert_allclose(same, losses, rtol=1e-4)
    np.testing.assert_allclose(again, right, atol=2 / 500)


def test_c_is_chosen_without_the_test_images(problem):
    x, labels, y, truth = problem
    sides = Side(x, labels.astype(np.int32)), Side(y, truth.astype(np.int32))
    numbers, protocol = logreg.measure(Case("student", *sides, 7), 0, grid=GRID, iterations=500)
    held = np.random.RandomState(0).permutation(500)[:50]
    rest = np.setdiff1d(np.arange(500), held)
    scores = [
        LogisticRegression(C=c, tol=1e-10, max_iter=5000).fit(x[rest], labels[rest]).score(x[held], labels[held])
        for c in GRID
    ]
    assert scores[GRID.index(protocol["C"])] == max(scores) == protocol["held_out_top1"]
    model = LogisticRegression(C=protocol["C"], tol=1e-10, max_iter=5000).fit(x, labels)
    assert numbers["top1"] == pytest.approx(model.score(y, truth), abs=1e-3)


def test_principal_axes_are_a_turn_that_is_left_out_where_features_are_too_wide(problem, monkeypatch):
    x, *_ = problem
    turn = logreg.axes(x, lambda block: block)
    np.testing.assert_allclose(turn.T @ turn, np.eye(x.shape[1]), atol=1e-5)
    turned = x @ turn
    spread = turned.T @ turned / len(x)
    np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-4)
    head = np.arange(2.0 * (x.shape[1] + 1)).reshape(-1, 2) / len(x)
    back = logreg.turned_back(head, turn)
    np.testing.assert_allclose(x @ back[:-1] + back[-1], turned @ head[:-1] + head[-1], atol=1e-3)
    monkeypatch.setattr(logreg, "WIDEST", x.shape[1] - 1)
    assert logreg.axes(x, lambda block: block) is None and logreg.turned_back(head, None) is head


@pytest.mark.parametrize("change, sentence", [
    (dict(grid=(0.0, 1.0)), "must be above 0"), (dict(iterations=0), "must be above 0"),
])  # fmt: skip
def test_options_that_fit_nothing_are_a_sentence(change, sentence, problem):
    x, labels, y, truth = problem
    with pytest.raises(UserError, match=sentence):
        logreg.measure(Case("student", Side(x, labels), Side(y, truth), 7), 0, **change)
