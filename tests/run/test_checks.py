"""What does not fit together in a config, its data and its length, without a step."""

import jax
import numpy as np
import pytest
from jax_ssl.configs import ablations

from jax_ssl import config, core, parts
from jax_ssl.errors import UserError
from jax_ssl.optim import optimizers
from jax_ssl.optim.schedules import Clock
from jax_ssl.run import checks
from tests.small import METHODS, small
from tests.test_config import FILES

# Methods that look at each image by itself.
ALONE = {"mae", "simmim", "beit", "dvae", "rotnet", "jigsaw", "colorization", "context_encoder"}


def presets(name):
    with pytest.raises(UserError) as told:
        config.load(f"{name}:no_such")
    return str(told.value).partition("choose one of ")[2].split(", ")


@pytest.mark.parametrize("name", [name for name in FILES if name != "quickstart"])
def test_every_preset_is_meant(name):
    # Runs of paper scale have a tokenizer of their own, which nobody has trained here.
    more = ["--config.method.tokenizer="] if name == "beit" else []
    for preset in presets(name):
        checks.check(config.load(f"{name}:{preset}", more), 1)


@pytest.mark.parametrize("suite", ablations.SUITES)
def test_every_cell_of_an_ablation_is_meant(suite):
    suite = ablations.SUITES[suite]
    for cell in suite.cells.values():
        own = suite.overrides | cell.overrides
        flags = [f"--config.{key}={value!r}" for key, value in own.items()]
        checks.check(config.load(cell.config or suite.config, flags), 1)


def fit(name, *more, images=5000):
    settings = small(name, *more)
    clock = Clock(images / settings.batch_size, max(1, round(settings.epochs * images / settings.batch_size)))
    return checks.check_fit(parts.make_method(settings, clock), clock, settings, images)


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_compare_images_need_two(name):
    assert parts.make_method(small(name), Clock(10.0, 100)).min_batch == (1 if name in ALONE else 2)
    more = ["--config.batch_size=1", "--config.model.norm_groups=1"][: 1 + ("norm_groups" in small(name).model)]
    if name in ALONE:
        checks.check(small(name, *more), 1)
    else:
        with pytest.raises(UserError, match=f"batch_size=1 is too small for {name}"):
            checks.check(small(name, *more), 1)


@pytest.mark.parametrize("name", METHODS)
def test_a_run_of_a_method_that_fits_has_nothing_to_note(name):
    assert fit(name) == []


@pytest.mark.parametrize("name", METHODS)
def test_a_method_tells_its_teacher_s_momentum_and_its_temperatures(name):
    settings, clock = config.load(f"{name}:tiny"), Clock(10.0, 100)
    method = parts.make_method(settings, clock)
    assert ("teacher_momentum" in method.curves) == bool(method.teacher)
    if method.teacher:
        assert float(method.curves["teacher_momentum"](7)) == float(method.momentum(7))
    if "teacher_temp" in settings.method:
        last = float(method.curves["teacher_temperature"](99))
        np.testing.assert_allclose(last, settings.method.teacher_temp, rtol=1e-6)
    values = [float(curve(step)) for curve in method.curves.values() for step in (0, 50, 99)]
    assert np.all(np.isfinite(values))


def test_the_optimisers_curves_are_those_that_it_takes():
    settings = config.load("dino:cifar").optim
    curves = optimizers.curves(settings, 256, Clock(100.0, 800))
    assert set(curves) == {"learning_rate", "weight_decay"}
    at = lambda step: float(curves["learning_rate"](step))
    assert at(0) == 0 and at(25) == pytest.approx(1e-3) and at(50) == pytest.approx(2e-3) and at(800) == 0
    assert float(curves["weight_decay"](400)) == pytest.approx(1e-4)
    settings.final_weight_decay = 2e-4
    assert float(optimizers.curves(settings, 256, Clock(100.0, 800))["weight_decay"](400)) == pytest.approx(1.5e-4)


def test_a_batch_larger_than_the_data_set_is_refused_with_one_that_fits():
    images = jax.device_count() * 3 + 2
    with pytest.raises(UserError, match=f"the 26 training images.*take {jax.device_count() * 3}"):
        fit("simclr", images=images)
    with pytest.raises(UserError, match=f"have at least {jax.device_count()} images"):
        fit("simclr", images=3)
    assert fit("simclr", "--config.optim.warmup_epochs=0", images=32) == []


def test_what_does_not_end_in_a_run_is_noted_with_its_steps():
    cases = {
        ("simclr", "--config.optim.warmup_epochs=10"):
            "optim.warmup_epochs=10.0 is 1,563 steps, and the run has 469: the learning rate never reaches its peak.",
        ("dino", "--config.optim.late_epochs=9"):
            "optim.late_epochs=9.0 is 1,407 steps, and the run has 125: the parameters of optim.late never move.",
        ("dino", "--config.method.warmup_teacher_epochs=1"):
            "method.warmup_teacher_epochs=1.0 is 157 steps, and the run has 125: "
            "the teacher's temperature never reaches its final value.",
        ("swav", "--config.method.freeze_steps=500"):
            "method.freeze_steps=500 steps, and the run has 469: the prototypes never move.",
        ("swav", "--config.method.queue_from_epoch=15.0"):
            "method.queue_from_epoch=15.0 is 2,344 steps, and the run has 469: the queue is never used.",
        ("moco", "--config.method.queue=65536", "--config.epochs=1.0"):
            "method.queue=65536 remembers more than the 5,000 training images: some of them twice.\n"
            "method.queue=65536 is never full in 156 steps of 32 images.",
        ("simclr", "--config.optim.schedule=step", "--config.optim.milestones=(1,5)"):
            "optim.milestones=(1,5) is 782 steps, and the run has 469: the last of them never comes.",
    }  # fmt: skip
    for flags, sentences in cases.items():
        assert "\n".join(fit(*flags)) == sentences


def test_a_config_file_of_the_users_own_is_read_to_the_last_key(tmp_path):
    mine, start = tmp_path / "mine.py", "from jax_ssl.configs import simclr\ndef get_config():\n    c = simclr.tiny()\n"
    cases = {
        "c.epoch = 3.0": "unknown key epoch; did you mean config.epochs?",
        "c.optim = dict(c.optim, warmup=3.0)": "unknown key optim.warmup; ",
        "del c.data['workers']": "lacks the key data.workers",
        "c.model = {}": "no model.name",
        "return dict(c)": "get_config has to return a ConfigDict",
    }
    for line, words in cases.items():
        mine.write_text(f"{start}    {line}\n    return c\n")
        with pytest.raises(UserError, match=words):
            config.load(str(mine))


def test_pixels_that_a_method_counts_on():
    settings = config.load("simclr:tiny", ["--config.data.mean=(0,0,0)", "--config.data.std=(1,1,1)"])
    method = core.Method(None, None, pixels=(0, 1))
    assert checks.check_pixels(settings, method) is None
    with pytest.raises(UserError, match=r"simclr needs pixels from 0 to 1: set data.mean=\(0.0,0.0,0.0\)"):
        checks.check_pixels(config.load("simclr:tiny"), method)
    with pytest.raises(UserError, match=r"from -1 to 1: set data.mean=\(0.5,0.5,0.5\)"):
        checks.check_pixels(settings, method._replace(pixels=(0.5, 0.5)))
