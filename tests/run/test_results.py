"""results.jsonl: one line a number, whole lines only, and a folder that can't be written to."""

import json

import jax.numpy as jnp

from jax_ssl.run.results import folder_of, record_result

RESULT = dict(task="knn", weights="student", metric="top1", data="cifar10", split="test", k=20)


def test_each_file_of_weights_has_a_folder_of_results():
    assert folder_of("there/dino_vits16.pth") == "results/dino_vits16" != folder_of("gs://mine/mae.safetensors")


def test_results_are_appended_and_a_torn_line_is_dropped(tmp_path):
    protocol = {"temperature": 0.07, "offline": True}
    first = record_result(tmp_path, **RESULT, value=jnp.float32(0.5), protocol=protocol, step=10, seed=0)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"task": "kn')
    second = record_result(tmp_path, **RESULT, value=float("nan"), protocol=protocol, step=20, seed=0)
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [first, {**second, "value": None}]
    assert first == {**RESULT, "value": 0.5, "protocol": protocol, "step": 10, "seed": 0}


def test_a_result_that_can_not_be_written_is_told_once(tmp_path, capsys):
    (tmp_path / "results.jsonl").mkdir()  # as good as a folder of another user
    for _ in range(2):
        record = record_result(tmp_path, **RESULT, value=0.5, protocol={}, step=1, seed=0)
    assert record["value"] == 0.5
    said = capsys.readouterr().out
    assert said.count("not recorded, because") == 1 and said.count("\n") == 1
