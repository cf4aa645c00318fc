import json

from jax_ssl.plan import published, topology
from jax_ssl.study import seals


def test_a_bound_stands_beside_the_run_of_its_config_and_pod():
    run = json.loads(published.RUNS.read_text())[0]
    plan = {"config": run["config"], "topology": run["topology"], "batch_size": 4096,
            "bound": {"step_seconds": 0.05, "by": "memory"}}  # fmt: skip
    first, *others = published.compare([plan, plan | {"topology": "v3:4x4"}, {"config": "x", "topology": "y"}])
    assert first["bound"] == 4096 / 0.05 and first["by"] == "memory"
    assert all(other["bound"] is None for other in others)
    assert f"| {4096 / 0.05 / run['images_per_second']:.1f} | memory |" in published.table([plan])


def test_no_published_run_is_faster_than_its_bound():
    """A bound that somebody has beaten is wrong; one of a ResNet that is six times too high has to say why."""
    compared = [run for run in published.compare(seals.read("plans.jsonl")) if run["bound"]]
    assert len(compared) >= 4
    for run in compared:
        times = run["bound"] / run["images_per_second"]
        assert times > 1, run
        assert "ResNet" not in run["run"] or times < 6 or run.get("note"), run
        topology.parse(run["topology"])
