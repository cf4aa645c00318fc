"""Every schedule at points that can be worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_ssl.optim import schedules

CLOCK = schedules.Clock(steps_per_epoch=10.0, total_steps=100)


@pytest.mark.parametrize("step, value", [(0, 0), (10, 0.5), (20, 1.0), (40, 0.8535534), (60, 0.5), (100, 0), (120, 0)])
def test_cosine_after_a_warm_up_of_two_epochs(step, value):
    assert schedules.cosine(1.0, 0.0, CLOCK, 2.0)(step) == pytest.approx(value, abs=1e-6)


def test_cosine_to_a_floor_and_with_fractional_epochs():
    assert schedules.cosine(1.0, 0.2, CLOCK)(50) == pytest.approx(0.6)
    clock = schedules.Clock(2.5, 20)
    assert schedules.cosine(1.0, 0.0, clock, 1.0)(2) == pytest.approx(2 / 2.5)
    assert schedules.cosine(1.0, 0.0, clock, 1.0)(3) == pytest.approx((1 + np.cos(np.pi * 0.5 / 17.5)) / 2)


def test_a_warm_up_as_long_as_the_run_or_longer_stays_finite():
    assert schedules.cosine(1.0, 0.0, CLOCK, 10.0)(100) == 1.0
    assert [float(schedules.cosine(1.0, 0.0, CLOCK, 20.0)(step)) for step in (0, 100)] == [0.0, 0.5]


@pytest.mark.parametrize("step, value", [(0, 0), (5, 1), (10, 2), (49, 2), (50, 0.2), (79, 0.2), (80, 0.02)])
def test_step_falls_at_epochs_counted_from_the_beginning(step, value):
    assert schedules.step(2.0, (5, 8), CLOCK, warmup_epochs=1.0)(step) == pytest.approx(value)


def test_step_without_milestones_or_warm_up_is_constant():
    assert schedules.step(2.0, (), CLOCK)(99) == schedules.constant(2.0)(0) == schedules.constant(2.0)(99) == 2.0
    assert schedules.constant(2.0, CLOCK, 1.0)(5) == 1.0


def test_ema_schedules_of_the_papers():
    momentum = schedules.cosine(0.996, 1.0, CLOCK)
    for step in (0, 25, 70, 100):
        byol = 1 - (1 - 0.996) * (np.cos(np.pi * step / 100) + 1) / 2
        assert 1 - float(momentum(step)) == pytest.approx(1 - byol, abs=1e-7)
    assert schedules.linear(0.996, 1.0, CLOCK)(50) == pytest.approx(0.998)
    assert schedules.linear(0.996, 1.0, CLOCK)(100) == 1.0
    assert schedules.linear(0.998, 1.0, CLOCK, stretch=1.25)(100) == pytest.approx(0.998 + 0.002 * 0.8)


def test_schedules_are_fp32_under_jit():
    falling = schedules.cosine(1.0, 0.0, CLOCK, 1.0), schedules.step(1.0, (1,), CLOCK)
    for schedule in (schedules.constant(0.999), schedules.linear(0, 1, CLOCK), *falling):
        assert jax.jit(schedule)(jnp.int32(3)).dtype == jnp.float32


def test_a_teacher_without_momentum_has_none_at_any_step():
    assert [float(schedules.teacher_momentum(0.0, CLOCK)(step)) for step in (0, 50, 100)] == [0, 0, 0]
    np.testing.assert_allclose(schedules.teacher_momentum(0.9, CLOCK)(50), 0.95, rtol=1e-6)


@pytest.mark.parametrize("step, value", [(0, 0.04), (9, 0.04), (10, 0.055), (25, 0.07), (30, 0.07), (99, 0.07)])
def test_a_temperature_rises_once_an_epoch(step, value):
    assert float(schedules.epoch_ramp(0.04, 0.07, 3.0, CLOCK)(step)) == pytest.approx(value, abs=1e-7)


def test_a_ramp_of_no_epochs_is_its_end_and_one_of_a_single_epoch_its_start():
    assert float(schedules.epoch_ramp(0.04, 0.07, 0.0, CLOCK)(0)) == pytest.approx(0.07)
    short = schedules.epoch_ramp(0.04, 0.07, 1.0, CLOCK)
    assert [round(float(short(step)), 4) for step in (0, 9, 10)] == [0.04, 0.04, 0.07]
