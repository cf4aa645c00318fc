"""Official files by name: listed, fetched from a mirror or an address, continued, checked and kept."""

import hashlib
import http.server
import re
import threading

import pytest

from jax_ssl import __main__ as command
from jax_ssl.errors import LostError, UserError
from jax_ssl.weights import load, read, zoo
from jax_ssl.weights.families import FAMILIES
from tests.weights.test_import import golden, run  # noqa: F401


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_SSL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def test_every_entry_can_be_named_fetched_and_read():
    for name, entry in zoo.table().items():
        assert re.fullmatch(r"[a-z0-9_]+", name) and entry["url"].startswith("https://")
        assert entry["family"] in FAMILIES and entry["source"].startswith("https://github.com/")
        assert entry["url"].endswith(read.TORCH)
        for number in (entry["knn"], entry["linear"]):
            assert number is None or 50 < number < 95


def test_list(capfd):
    code, out = run(capfd, "list", "dinov2")
    rows = out.splitlines()
    assert code == 0 and len(rows) == 9 and re.search(r"dinov2_vits14 +ViT-S/14 +79.0 +81.1 +Apache 2.0$", out, re.M)
    assert len(run(capfd, "list")[1].splitlines()) == 1 + len(zoo.table())
    code, out = run(capfd, "list", "vgg")
    assert code == 2 and "No official file has 'vgg'" in out


def test_a_mirror_stands_in_and_the_file_is_kept(golden, tmp_path, cache, capfd, monkeypatch):  # noqa: F811
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    code, out = run(capfd, "get", "dino_vits16", f"--from={mirror}")
    assert code == 2 and "has no dino_vits16.pth" in out
    (mirror / "dino_deitsmall16_pretrain.pth").write_bytes((golden / "dino_vit.pth").read_bytes())
    code, out = run(capfd, "get", "dino_vits16", f"--from={mirror}")
    assert code == 0 and f"->  {cache / 'dino_vits16.pth'}" in out
    assert "yes" in next(line for line in run(capfd, "list", "dino_vits16")[1].splitlines() if "vits16" in line)
    monkeypatch.setattr(zoo, "download", None)  # from here on there is no network
    assert load("dino_vits16").backbone == load(golden / "dino_vit.pth").backbone


@pytest.mark.parametrize(
    "name, kind, begin", [("mae_vitb16", "md5", "8cad7c"), ("dinov3_vits16", "sha256", "08c60483")]
)
def test_a_checksum_that_is_not_the_published_one(golden, tmp_path, cache, capfd, name, kind, begin):  # noqa: F811
    (tmp_path / f"{name}.pth").write_bytes((golden / "official_mae.pth").read_bytes())
    code, out = run(capfd, "get", name, f"--from={tmp_path}")
    assert code == 1 and f"{kind} begins with" in out and f"not with {begin}" in out
    assert list(cache.iterdir()) == []


def test_names(capfd, tmp_path, golden, monkeypatch):  # noqa: F811
    code, out = run(capfd, "get", "dinov2_vits16")
    assert code == 2 and "did you mean one of" in out and "dinov2_vits14" in out
    with pytest.raises(UserError, match="weights list"):
        load("dino_vits61")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dino_vits16").mkdir()  # what is here comes first
    with pytest.raises(UserError, match="no config.json"):
        load("dino_vits16")


@pytest.fixture
def server():
    """A server of one file, which keeps what was asked for."""
    data, asked = bytes(range(256)) * 5000, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            begin = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
            asked.append(begin)
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            # The first answer is cut off in the middle.
            self.wfile.write(data[begin:] if len(asked) > 1 else data[: len(data) // 2])

        def log_message(self, *_):
            pass

    serving = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}/x.pth", data, asked
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_a_download_that_was_cut_off_goes_on(server, monkeypatch):
    url, data, asked = server
    entry = zoo.table()["simsiam_resnet50"] | {"url": url, "sha256": hashlib.sha256(data).hexdigest()}
    monkeypatch.setattr(zoo, "table", lambda: {"x": entry})
    with pytest.raises(LostError, match="could not be fetched.*--from=FOLDER"):
        zoo.get("x")
    assert zoo.get("x").read_bytes() == data
    assert asked == [0, len(data) // 2]
    zoo.get("x")
    assert len(asked) == 2


def test_without_a_network_one_plain_sentence(monkeypatch, capfd):
    entry = zoo.table()["simsiam_resnet50"] | {"url": "https://127.0.0.1:9/x.pth"}
    monkeypatch.setattr(zoo, "table", lambda: {"x": entry})
    assert command.main(["weights", "get", "x"]) == 1
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and "x could not be fetched" in told and "--from=FOLDER" in told
