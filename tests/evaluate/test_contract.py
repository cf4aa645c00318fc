"""Every ruler keeps to the contract of evaluate/case.py, and its page names it."""

import inspect

import pytest

from jax_ssl import __main__ as command
from jax_ssl.run import results
from jax_ssl.study import rulers


@pytest.mark.parametrize("name", rulers.names())
def test_a_ruler_is_what_evaluate_expects(name, request):
    ruler = rulers.open_ruler(name)
    assert set(ruler.NEEDS) <= {"labels", "network", "squares", "trained"}
    first, second, *options = inspect.signature(ruler.measure).parameters.values()
    assert (first.name, second.name) == ("case", "seed")
    assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in options)
    assert rulers.options_of(name, ()) == {option.name: option.default for option in options}
    title = ruler.__doc__.splitlines()[0]
    assert title[-1] in ".?" and len(title) <= 120
    pages = [(request.config.rootpath / "docs" / f"{page}.md").read_text() for page in ("evaluation", "rulers")]
    assert any(f"`{name}`" in page or f"--task={name}" in page for page in pages)


def test_the_command_measures_and_records_with_names_of_protocols(tmp_path, capsys, request, monkeypatch):
    monkeypatch.setattr("jax_ssl.evaluate.cost.SECONDS", 0.01)
    tasks = ["cluster", "retrieval", "robustness", "representation", "ood", "copies", "cost"]
    options = ["cluster.starts=1", "retrieval.queries=10", 'robustness.kinds=("contrast",)', "robustness.images=8",
               "representation.images=0", "representation.layer_images=0", "ood.noise=8", "copies.originals=5",
               "cost.rounds=1", "data.probe.train=60", "data.probe.test=40"]  # fmt: skip
    file = request.config.rootpath / "tests" / "golden" / "dino_vit.pth"
    flags = [f"--weights={file}", f"--out={tmp_path}", f"--task={','.join(tasks)}", "--which=student"]
    assert command.main(["evaluate", *flags, *(f"--config.{option}" for option in options)]) == 0
    said, found = capsys.readouterr().out, results.read_results(tmp_path)
    assert {(r["task"], r["protocol"]["name"], r["weights"]) for r in found} == {(t, t, "dino_vit") for t in tasks}
    assert "one_to_one ± std" in said and "mce_1" not in said and "auroc_noise" in said
    assert {r["k"] for r in found if r["metric"] == "recall"} == {1, 5, 10}
    assert {r["k"] for r in found if r["metric"] == "turned"} == {None, *range(-180, 181, 15)}
