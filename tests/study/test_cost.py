"""What a run has spent is read from its own files."""

import json

import pytest

from jax_ssl.study import cost, measure
from tests.small import small

LINES = [{"step": 2, "step_seconds": 0.5}, {"step": 5, "step_seconds": 1.0, "knn": 0.25}, {"step": 6, "knn": None}]


def test_seconds_are_those_of_all_steps():
    assert cost.seconds_up_to(LINES) == pytest.approx([0, 1, 4, 4]) and cost.seconds_up_to([]) == [0]


def test_a_run_says_what_it_has_spent(runs):
    run = runs("mae")
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (run / "goodput.json").write_text(json.dumps({"seconds": {"repeated": 3.0}}))
    networks = measure.open_run(str(run))
    found = cost.training_of(networks)
    assert found.probes == [(5, 4.0, 0.25)] and found.batch == small("mae").batch_size and found.repeated == 3.0
    sizes = {name: cost.count(tree) for name, tree in networks.arrays["params"].items()}
    assert found.parameters == sum(sizes.values()) > sizes["backbone"] > 0
    # A step learns, at three times the forward pass, from the quarter of the patches that MAE encodes.
    encode = measure.trained(networks, "student")
    assert found.flops() > 3 / 4 * found.batch * cost.flops_of_image(encode, 32) > 0
