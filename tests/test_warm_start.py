"""Continued training: whole runs, parts of several, official files, other resolutions, and what does not fit."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl import core, measure, warm_start
from jax_ssl.errors import UserError
from jax_ssl.models import positions
from tests.methods.test_contract import first_batch
from tests.runs import save_run
from tests.small import small

OFFICIAL = str(Path(__file__).parent / "golden" / "dino_vit.pth")
# Positions as a parameter, as in the papers: the small configs have fixed ones, and nothing to resize.
LEARNED = "--config.model.positions=learned"
AS_OFFICIAL = ("--config.model.mlp_ratio=4.0", LEARNED)


def state_of(name, *more, seed=7):
    return measure.untrained_state(small(name, f"--config.seed={seed}", *more))


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
    config = small("byol")
    state = measure.untrained_state(config)
    moved = state.replace(extra=jax.tree.map(lambda x: x + 0.5, state.extra))
    from jax_ssl import checkpoints

    keeper = checkpoints.Checkpoints(tmp_path / "run" / "checkpoints")
    keeper.save(3, moved, wait=True)
    keeper.close()
    found = warm_start.start_from(str(tmp_path / "run"), state_of("byol"), config)
    equal(found.extra["stats"], moved.extra["stats"])
    equal(found.extra["teacher_stats"], moved.extra["teacher_stats"])


def test_new_heads_learn_while_the_backbone_stands_still():
    late = ("--config.optim.late=('backbone',)", "--config.optim.late_epochs=0.1", "--config.optim.warmup_epochs=0.0")
    _, method, tx, batch = first_batch("dino", *late)
    state = jax.jit(lambda b: core.create(method, tx, jax.random.key(0), b))(batch)
    after, _ = jax.jit(lambda s, b: core.train_step(method, tx, s, b))(state, batch)
    equal(after.params["backbone"], state.params["backbone"])
    assert np.any(np.asarray(after.params["projector"]["layers_0"]["kernel"])
                  != np.asarray(state.params["projector"]["layers_0"]["kernel"]))  # fmt: skip


@pytest.mark.parametrize(
    "init_from, config, complaint",
    [
        ("head=RUN", "dino", "init_from has head=, and this method has backbone, projector, teacher"),
        ("backbone=RUN,RUN", "dino", "give one path, or several as backbone=PATH"),
        ("projector=RUN", "mae", "init_from has projector="),
        (
            "RUN",
            f"dino {LEARNED} --config.model.depth=3",
            r"is \(2, .* and this config needs \(3, .*name the parts to take",
        ),
        ("backbone=RUN", "mae", "has no .*|has .*position.*network has not"),
        (f"projector={OFFICIAL}", f"dino {' '.join(AS_OFFICIAL)}", "has no projector: it has backbone"),
        ("/no/such/run", "dino", "no/such/run"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(init_from, config, complaint, dino_run):
    name, *more = config.split()
    with pytest.raises(UserError, match=complaint) as caught:
        warm_start.start_from(init_from.replace("RUN", dino_run), state_of(name, *more), small(name, *more))
    assert "\n" not in str(caught.value)
