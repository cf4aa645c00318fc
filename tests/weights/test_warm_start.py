"""Continued training: whole runs, parts of several, official files, other resolutions, and what does not fit."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import core
from jax_ssl.errors import UserError
from jax_ssl.models import positions
from jax_ssl.run import checkpoints
from jax_ssl.study import measure
from jax_ssl.weights import warm_start
from tests.methods.test_contract import first_batch
from tests.runs import save_run
from tests.small import small

OFFICIAL = str(Path(__file__).parents[1] / "golden" / "dino_vit.pth")
# Positions as a parameter, as in the papers: the small configs have fixed ones, and nothing to resize.
LEARNED = "--config.model.positions=learned"
AS_OFFICIAL = ("--config.model.mlp_ratio=4.0", LEARNED)


@functools.cache
def made(name, *more):
    return measure.untrained_state(small(name, *more))


def state_of(name, *more, seed=7):
    """The first state of a method, in dicts that the caller may change."""
    return jax.tree.map(lambda x: x, made(name, f"--config.seed={seed}", *more))


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def dino_run(tmp_path_factory):
    return str(save_run(tmp_path_factory.mktemp("runs") / "dino", "dino", LEARNED))


@pytest.fixture(scope="module")
def dino_params():
    return state_of("dino", LEARNED, seed=0).params


def test_a_whole_run_student_and_teacher(dino_run, dino_params):
    said = []
    state = warm_start.start_from(dino_run, state_of("dino", LEARNED), small("dino", LEARNED), said.append)
    equal(state.params, dino_params)
    equal(state.teacher, dino_params)
    assert said == [f"starting from backbone of {dino_run}, projector of {dino_run}"]


def test_a_backbone_for_another_method_with_its_heads_new_and_its_mask_token_too(dino_run, dino_params):
    before, said = state_of("ibot", LEARNED), []
    state = warm_start.start_from(f"backbone={dino_run}", before, small("ibot", LEARNED), said.append)
    token = state.params["backbone"].pop("mask_token")
    equal(state.params["backbone"], dino_params["backbone"])
    np.testing.assert_array_equal(token, before.params["backbone"]["mask_token"])
    equal(state.params["projector"], before.params["projector"])
    np.testing.assert_array_equal(state.teacher["backbone"]["positions"], dino_params["backbone"]["positions"])
    assert "new: patch_projector, projector" in said[0] and "optim.late" in said[0]


def test_an_official_file_gives_the_backbone():
    state = warm_start.start_from(f"backbone={OFFICIAL}", state_of("dino", *AS_OFFICIAL), small("dino"))
    official = np.load(Path(OFFICIAL).with_name("dino_vit_io.npz"))
    from jax_ssl.encoder import freeze
    from jax_ssl.parts import make_backbone

    for which in ("student", "teacher"):
        features = freeze(make_backbone(small("dino", *AS_OFFICIAL)), state, which)(jnp.asarray(official["x"]))
        np.testing.assert_allclose(features.pooled, official["cls"], rtol=1e-4, atol=1e-5)


def test_positions_are_resized_to_a_higher_resolution(dino_run, dino_params):
    large = ("--config.data.crops.views[0].size=48", "--config.data.eval_size=48", "--config.model.position_offset=0.1")
    config = small("dino", LEARNED, *large)
    state = warm_start.start_from(dino_run, measure.untrained_state(config), config)
    expected = positions.resize(jnp.asarray(dino_params["backbone"]["positions"]), (6, 6), 0.1, False)
    np.testing.assert_allclose(state.params["backbone"]["positions"], expected, rtol=1e-6)


def test_the_teacher_may_come_from_elsewhere(dino_run, dino_params):
    before = state_of("dino", LEARNED)
    state = warm_start.start_from(f"teacher={dino_run}", before, small("dino", LEARNED))
    equal(state.params, before.params)
    equal(state.teacher, dino_params)


def test_batch_statistics_come_with_their_network(tmp_path):
    state = state_of("byol")
    moved = state.replace(extra=jax.tree.map(lambda x: x + 0.5, state.extra))
    found = warm_start.start_from(saved(tmp_path, moved), state, small("byol"))
    equal(found.extra["stats"], moved.extra["stats"])
    equal(found.extra["teacher_stats"], moved.extra["teacher_stats"])


def test_new_heads_learn_while_the_backbone_stands_still():
    late = ("--config.optim.late=('backbone',)", "--config.optim.late_epochs=0.1", "--config.optim.warmup_epochs=0.0")
    _, method, tx, batch = first_batch("mae", *late)
    state = state_of("mae")
    state = state.replace(opt_state=jax.jit(tx.init)(state.params))
    after, _ = jax.jit(lambda s, b: core.train_step(method, tx, s, b))(state, batch)
    equal(after.params["backbone"], state.params["backbone"])
    heads = (np.asarray(s.params["decoder"]["predict"]["kernel"]) for s in (after, state))
    assert np.any(next(heads) != next(heads))


def test_a_path_with_signs_of_our_own_is_not_cut_apart(tmp_path):
    known = ("backbone", "projector", "teacher")
    odd = tmp_path / "lr=0.1,bs=256" / "a,projector=1"
    odd.mkdir(parents=True)
    assert warm_start.parse(str(odd), known) == {"": str(odd)}
    assert warm_start.parse(f"backbone={odd}", known) == {"backbone": str(odd)}
    both = f"backbone={odd}, projector={odd.parent},teacher=/no/such"
    assert warm_start.parse(both, known) == {"backbone": str(odd), "projector": str(odd.parent), "teacher": "/no/such"}
    assert warm_start.parse("backbone=gs://bucket/a", known) == {"backbone": "gs://bucket/a"}


def test_a_path_below_the_home_folder(dino_run, monkeypatch):
    monkeypatch.setenv("HOME", str(Path(dino_run).parent))
    assert warm_start.read("~/dino")["params"].keys() == {"backbone", "projector"}


def told(init_from, config, state):
    said = []
    warm_start.start_from(init_from, state, config, said.append)
    return said[1:]


def test_another_normalisation_is_told_for_runs_and_files(dino_run):
    other, ours = "--config.data.mean=(0.5,0.5,0.5)", state_of("dino", LEARNED)
    (said,) = told(dino_run, small("dino", LEARNED, other), ours)
    assert dino_run in said and "other normalisation" in said and "--config.data.mean=(0.4" in said and "\n" not in said
    (said,) = told(f"backbone={OFFICIAL}", small("dino", *AS_OFFICIAL, other), state_of("dino", *AS_OFFICIAL))
    assert "mean (0.485, 0.456, 0.406)" in said and "(0.5, 0.5, 0.5)" in said
    Path(dino_run, "config.json").rename(Path(dino_run, "config.old"))
    assert told(dino_run, small("dino", LEARNED, other), ours) == []  # weights are all that is needed
    Path(dino_run, "config.old").rename(Path(dino_run, "config.json"))


def saved(folder, state):
    """The folder of a run with this state."""
    keeper = checkpoints.Checkpoints(folder / "checkpoints")
    keeper.save(3, state, wait=True)
    keeper.close()
    return str(folder)


@pytest.mark.parametrize("name", ["simclr", "mae"])
def test_a_dead_network_is_told_at_the_start(name, tmp_path):
    config, state = small(name), made(name)
    assert warm_start.backbone_spread(state, config) > 0.1
    for factor, what in ((0.0, "one and the same feature"), (1e25, "not finite|one and the same")):
        dead = state.replace(params=jax.tree.map(lambda x, by=factor: x * jnp.asarray(by, x.dtype), state.params))
        (said,) = told(saved(tmp_path / f"{factor}", dead), config, state)
        assert re.search(what, said) and "looks dead" in said and "take other weights" in said and "\n" not in said


@pytest.mark.parametrize("part", ["params", "extra"])
def test_weights_that_are_not_finite_are_refused(part, tmp_path):
    config, state = small("simclr"), made("simclr")
    bad = state.replace(**{part: jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(jnp.nan), getattr(state, part))})
    with pytest.raises(UserError, match="not finite: take other weights") as caught:
        told(saved(tmp_path, bad), config, state)
    assert "\n" not in str(caught.value)


def test_a_ruined_network_that_looks_alive_is_told_at_the_first_step():
    def said(**metrics):
        lines = []
        warm_start.warn_first_step("runs/a", metrics, lines.append)
        return lines

    assert "is not finite" in said(skipped=1, feature_std=0.9)[0]
    assert "nearly the same feature" in said(skipped=0, feature_std=0.015)[0]
    assert said(skipped=0, feature_std=0.4) == said(skipped=0) == []


@pytest.mark.parametrize(
    "init_from, config, complaint",
    [
        ("head=RUN", "dino", "init_from has head=, and this method has backbone, projector, teacher"),
        ("backbone=RUN,RUN", "dino", "give one path, or one for each part, as backbone=PATH"),
        ("projector=RUN", "mae", "init_from has projector="),
        (
            "RUN",
            f"dino {LEARNED} --config.model.depth=3",
            r"is \(2, .* and this config needs \(3, .*give the parts to take",
        ),
        ("backbone=RUN", "mae", "has no .*|has .*position.*does not have"),
        (f"projector={OFFICIAL}", f"dino {' '.join(AS_OFFICIAL)}", "has no projector: it has backbone"),
        ("/no/such/run", "dino", "no/such/run"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(init_from, config, complaint, dino_run):
    name, *more = config.split()
    with pytest.raises(UserError, match=complaint) as caught:
        warm_start.start_from(init_from.replace("RUN", dino_run), state_of(name, *more), small(name, *more))
    assert "\n" not in str(caught.value)
