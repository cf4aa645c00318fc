import base64
import hashlib
import json
import re

import pytest

from jax_ssl import __main__ as command
from jax_ssl.study.report import at_end, facts, page
from jax_ssl.study.report.html import tag
from tests.study.report.example import CLASSES, EVIL, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def written(run):
    """The text of the page, by the command."""
    assert command.main(["report", f"--run={run}"]) == 0
    return (run / "report.html").read_text()


def test_the_result_comes_first_and_nothing_is_missing(written):
    first = written.index("kNN rises from 28.6 to 44.0\u00a0%; raw pixels reach 37.8\u00a0%.")
    places = [written.index(f'<section id="{name}"') for name in ("result", "health", "curves", "numbers", "pictures",
              "neighbours", "map", "confusion", "config", "reproduce")]  # fmt: skip
    assert [first, *places] == sorted([first, *places])
    assert "The linear probe rises from 33.6 to 49.0\u00a0%" in written
    assert "one standard error is 1.6 points" in written
    assert written.count("<tr>") > 40 and "test images 1,000; frozen" in written  # the protocol, on every row
    assert "--config=simclr:tiny" in written and "--config.batch_size=32" in written
    assert "no sign of it in 3 checks" in written and "restarts cost 10 s" in written


def test_names_are_text_and_nothing_else(written):
    assert "<img src=x" not in written and "\\u003cimg src=x" in written
    assert written.count("&lt;img src=x onerror=alert(1)&gt;") > 10


def test_nothing_comes_from_outside_and_the_policy_says_so(written):
    assert len(written) < 5_000_000  # bytes, so that it can be mailed
    outside = re.findall(r'(?:src|href)="(?!data:|#)[^"]*|url\(|@import|https?://(?!www.w3.org)', written)
    assert not outside
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', written)[1].replace("&#x27;", "'")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    for element in ("style", "script"):
        inside = re.search(f"<{element}>(.*?)</{element}>", written, re.S)[1]
        hashed = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{hashed}'" in policy
    assert " style=" not in written and "onclick" not in written


def test_the_same_run_gives_the_same_bytes(run, written, tmp_path):
    assert command.main(["report", f"--run={run}", f"--out={tmp_path / 'again.html'}"]) == 0
    assert (tmp_path / "again.html").read_text() == written


def test_the_map_has_every_held_out_image(written):
    data = json.loads(re.search(r'<script type="application/json" id="seen">(.*?)</script>', written, re.S)[1])
    assert data["names"] == sorted(CLASSES) and len(data["x"]) == len(data["files"]) == len(data["near"])
    assert set(data["labels"]) == {0, 1, 2} and max(data["x"] + data["y"]) <= 10_000
    assert any(EVIL in name for name in data["files"])
    assert all(number not in near for number, near in enumerate(data["near"]))


def test_the_end_of_a_run_writes_the_page_and_how_it_was_started(run, written):
    said = []
    at_end.write_page(run, "python -m jax_ssl train --config=simclr:tiny", False, None, said.append)
    text = (run / "report.html").read_text()
    assert said == [f"a page with all of it: {run / 'report.html'}"]
    assert '<canvas id="plane"' not in text and "report --run=" in text
    assert "The run was started by:" in text and facts.read(run).started["versions"]["jax_ssl"] in text


def test_a_page_that_fails_is_one_line(tmp_path):
    said = []
    at_end.write_page(str(tmp_path), "train", True, None, said.append)
    assert len(said) == 1 and said[0].startswith("The run is finished and saved, but its page is not written: ")


def test_a_run_without_anything_has_a_page(tmp_path, run):
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    text = page.run_page(facts.read(tmp_path), None)
    assert "Nothing is measured yet." in text and "Fewer than two steps" in text


@pytest.mark.parametrize(("words", "told"), [
    ([], "Give report one run, --run=FOLDER"), (["--run=nowhere"], "is no run folder"),
    (["--run=nowhere", "--config.epochs=1"], "leave --config.epochs=1 out"),
])  # fmt: skip
def test_mistakes(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["report", *words]) == 2
    assert told in capsys.readouterr().err


def test_every_value_is_escaped():
    made = tag("a", "<b>", None, [1, tag("i", "x & y")], title='"<', hidden=True, id=None)
    assert made == '<a title="&quot;&lt;" hidden>&lt;b&gt;1<i>x &amp; y</i></a>'
    assert tag("p", "a\x00b\udc80") == "<p>a\ufffdb\\udc80</p>"
