"""Official files by name: a table of where they are, and a cache of what was fetched.

zoo.json has, of each: family, architecture, url, licence, the page it is from, published kNN and linear probe in per
cent on ImageNet-1k, and where published a checksum or how it begins. null = not published there.
"""

import difflib
import functools
import hashlib
import json
import os
import urllib.error
import urllib.request

from etils import epath
from tqdm import tqdm

from jax_ssl import paths
from jax_ssl.errors import LostError, UserError

PIECE = 2**20  # bytes


@functools.cache
def table() -> dict[str, dict]:
    """{name: entry} of zoo.json."""
    return json.loads(paths.resolve(__file__).with_name("zoo.json").read_text())


def lines(word: str = "") -> list[str]:
    """The table as lines, one for each file whose name or family has `word` in it, and a head. Raises UserError."""
    chosen = {name: e for name, e in table().items() if word in name or word == e["family"]}
    if not chosen:
        raise UserError(f"No official file has {word!r} in its name: `weights list` shows all {len(table())}.")
    rows = [("name", "architecture", "kNN", "linear", "licence", "here")]
    for name, e in chosen.items():
        numbers = ("" if e[key] is None else f"{e[key]:.1f}" for key in ("knn", "linear"))
        rows.append((name, e["architecture"], *numbers, e["licence"] or "see its page", "yes" * cached(name).exists()))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def find(path) -> dict | None:
    """The entry of the table that a path names, if nothing of this name is on disk."""
    name = os.fspath(path)
    return table().get(name) if name in table() and not paths.resolve(name).exists() else None


def cached(name: str) -> epath.Path:
    """Where the file of this name is kept: in $JAX_SSL_CACHE or ~/.cache/jax_ssl, under `weights`."""
    folder = os.environ.get("JAX_SSL_CACHE") or "~/.cache/jax_ssl"
    if paths.is_remote(folder):
        folder = "~/.cache/jax_ssl"  # a download that is cut off goes on where it was, which a bucket cannot
    suffix = ".pth.tar" if table()[name]["url"].endswith(".tar") else ".pth"
    return paths.resolve(folder) / "weights" / f"{name}{suffix}"


def get(name: str, mirror: str | None = None, say=print) -> epath.Path:
    """The file of this name, fetched if it is not here yet, and checked.

    mirror: a folder, here or in a bucket, with the file under its own name or under the end of its address. Raises
    UserError for an unknown name, LostError where it cannot be fetched.
    """
    if name not in table():
        near = difflib.get_close_matches(name, table(), 3)
        hint = f"did you mean one of {', '.join(near)}?" if near else "`weights list` shows all names."
        raise UserError(f"There is no official file {name!r}: {hint}")
    file, entry = cached(name), table()[name]
    if file.exists():
        return file
    paths.make_writable(file.parent, "set JAX_SSL_CACHE to a folder of this machine")
    part = file.with_name(f"{file.name}.part")
    if mirror is not None:
        copy(source_in(mirror, name, entry["url"]), part, say)
    else:
        say(f"fetching {name} from {entry['url']} ({entry['licence'] or 'its licence: ' + entry['source']})")
        download(entry["url"], part, name)
    check(part, name, entry)
    part.replace(file)
    return file


def source_in(mirror: str, name: str, url: str) -> epath.Path:
    """The file of a mirror. Raises UserError."""
    folder = paths.resolve(mirror)
    candidates = [folder / cached(name).name, folder / url.rpartition("/")[2], folder / url.partition("://")[2]]
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        raise UserError(
            f"--from={mirror} has no {candidates[0].name} and no {candidates[1].name}: copy the file there."
        )
    return found


def copy(source: epath.Path, part: epath.Path, say) -> None:
    say(f"copying {source}")
    with source.open("rb") as given, part.open("wb") as kept:
        while piece := given.read(PIECE):
            kept.write(piece)


def download(url: str, part: epath.Path, name: str) -> None:
    """Writes the file at `url` to `part`, from where an earlier download was cut off. Raises LostError."""
    done = paths.size(part) if part.exists() else 0
    elsewhere = f"weights get {name} --from=FOLDER"  # the other verbs that take names have no such flag
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            done = done if answer.status == 206 else 0  # else the server sends the whole again
            rest = int(answer.headers.get("Content-Length") or 0)
            bar = tqdm(total=done + rest or None, initial=done, unit="B", unit_scale=True, desc=name)
            with part.open("ab" if done else "wb") as file, bar:
                while piece := answer.read(PIECE):
                    file.write(piece)
                    bar.update(len(piece))
        if rest and paths.size(part) != done + rest:
            raise OSError("the connection was cut off")
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing is left to send
            return
        raise LostError(
            f"{name} could not be fetched from {url} (HTTP {error.code}, {error.reason}): see its page, "
            f"{table()[name]['source']}, or take it from a folder: {elsewhere}."
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise LostError(
            f"{name} could not be fetched from {url} ({reason}): repeat the command where there is a network, or take "
            f"it from a folder: {elsewhere}."
        ) from error


def check(part: epath.Path, name: str, entry: dict) -> None:
    """Raises LostError, and deletes the file, if its size or checksum is not the published one."""
    for kind in ("sha256", "md5"):
        begins = entry.get(kind) or entry.get(f"{kind}_begins")
        if begins:
            digest = hashlib.new(kind, usedforsecurity=False)
            with part.open("rb") as file:
                while piece := file.read(PIECE):
                    digest.update(piece)
            if not digest.hexdigest().startswith(begins):
                part.unlink()
                raise LostError(
                    f"{name} is damaged: its {kind} begins with {digest.hexdigest()[: len(begins)]} and not with "
                    f"{begins}; repeat the command."
                )
    if entry.get("size") not in (None, paths.size(part)):
        size = paths.size(part)
        part.unlink()
        raise LostError(f"{name} is damaged: it has {size} bytes and not {entry['size']}; repeat the command.")
