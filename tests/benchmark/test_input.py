import json

import pytest
from PIL import Image

from jax_ssl import config
from jax_ssl.__main__ import main
from jax_ssl.benchmark import input


def test_three_modes_are_measured_on_jpegs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(input, "BATCH", 4)
    monkeypatch.setattr(input, "TURNS", 2)
    out = tmp_path / "rates.jsonl"
    flags = ["benchmark", "--what=input", "--config=simclr:tiny", "--steps=1", f"--out={out}"]
    assert main(flags) == 0
    (record,) = map(json.loads, out.read_text().splitlines())
    rates = record["images_per_second_per_core"]
    assert set(rates) == {"host", "hybrid", "device"} and min(rates.values()) > 0
    assert rates["device"] > rates["hybrid"]  # numbers against pixels
    assert "a sample photograph" in capsys.readouterr().out
    assert main([*flags[:-2], "--steps=0"]) == 2
    assert main([*flags[:1], "--what=nothing", *flags[2:]]) == 2


def test_the_sample_is_photographs_of_imagenets_size(tmp_path):
    folder = input.photographs(str(tmp_path))
    files = sorted(tmp_path.iterdir())
    assert folder == str(tmp_path) and len(files) == input.FILES
    with Image.open(files[0]) as image:
        assert image.format == "JPEG" and image.size == (input.WIDTH, input.HEIGHT)
    assert 20_000 < sum(f.stat().st_size for f in files) / len(files) < 200_000


@pytest.mark.slow
@pytest.mark.parametrize(("name", "times"), [("simclr", 2.5), ("dino", 3.0)])
def test_leaving_colours_to_the_device_frees_the_host(name, times, tmp_path):
    files = input.photographs(str(tmp_path))
    rates = input.measure(config.load(name, [f"--config.data.name=folder:{files}"]), 2)
    assert rates["hybrid"] >= times * rates["host"], rates
