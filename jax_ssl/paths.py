"""All access to paths that a user names. They may be on a disk or in a bucket; both are an `epath.Path`.

Code that opens, lists or makes such a path uses this file. `pathlib` and `open` only know disks: given
`gs://bucket/run`, they would make a folder called `gs:`. A bucket is not like a disk: it cannot append or rename,
libraries that write files themselves (Pillow, matplotlib, NumPy) cannot write there, and its errors are no OSErrors.
tests/test_paths.py lists the modules that may open files in another way, each with its reason.
"""

import contextlib
import functools
import importlib.util
import io
import json
import os
import re
import uuid

from etils import epath

from jax_ssl.errors import UserError

# The library that epath needs for each scheme. TensorFlow, if it is installed, can read gs:// instead.
LIBRARIES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}


def is_remote(path) -> bool:
    """Whether a path is in a bucket."""
    return re.match(r"[A-Za-z][\w+.-]*://", os.fspath(path)) is not None


def resolve(path) -> epath.Path:
    """The absolute path that a user means: `~` is the home folder; the address of a bucket stays as it is.

    Raises UserError for an unknown home folder, and for a scheme that can't be read here.
    """
    if is_remote(path):
        _check_scheme(os.fspath(path).partition("://")[0])
        return epath.Path(path)  # `resolve` would spoil the address
    there = os.path.expanduser(path)
    if there.startswith("~"):  # else a folder called `~` would be made
        raise UserError(f"{path}: no home folder is known for {there.partition('/')[0]} here: give the whole path.")
    return epath.Path(os.path.abspath(there))


def write(path: epath.Path, text: str) -> None:
    """Writes a small file as a whole: a reader never finds a part of it. Object stores do so by themselves."""
    if is_remote(path):
        path.write_text(text)
        return
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # two commands never share one
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a write to a full disk does not say where
        temporary.unlink(missing_ok=True)
        raise


@functools.cache
def _check_scheme(scheme: str) -> None:
    if scheme not in LIBRARIES:
        raise UserError(f"{scheme}:// is not read here: give a folder of this machine, or gs://BUCKET/PATH.")
    with_tensorflow = os.environ.get("EPATH_USE_TF", "").lower() not in ("false", "no", "f", "0")
    if scheme == "gs" and with_tensorflow and importlib.util.find_spec("tensorflow"):
        return
    try:
        epath.Path(f"{scheme}://bucket").exists()
    except Exception as error:
        if isinstance(error, ImportError | NotImplementedError) or type(error).__name__ == "UnimplementedError":
            raise UserError(
                f"{scheme}:// needs another library: pip install {LIBRARIES[scheme]}, and set EPATH_USE_TF=false in "
                "the environment of the command."
            ) from error
        # Any other error comes from the bucket: the scheme itself is understood.


def check_run(workdir, flag: str = "--workdir") -> None:
    """Raises UserError for a kind of bucket that checkpoints cannot be written to: all but gs://."""
    if is_remote(workdir) and not os.fspath(workdir).startswith("gs://"):
        raise UserError(f"{flag}={workdir}: a run is kept in a folder of this machine, or in gs://BUCKET/PATH.")


def reason(error: BaseException) -> str | None:
    """What a disk or a bucket reports, in a few words; None for any other error.

    TensorFlow, which reads buckets, has errors of its own. It is not imported here, so they are known by their module.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if not isinstance(error, OSError) and type(error).__module__ != "tensorflow.python.framework.errors_impl":
        return None
    code = re.search(r"HTTP response code (\d+)", str(error))
    if code:
        meaning = {"401": "not logged in", "403": "no permission", "404": "no such bucket"}.get(code[1], "refused")
        return f"{meaning}, HTTP {code[1]}"
    curl = re.search(r"libcurl code \d+ meaning '([^']*)'", str(error))
    return curl[1] if curl else (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def bucket_trouble(error: BaseException) -> str | None:
    """The sentence for an unexpected error of a bucket, None for any other error."""
    if isinstance(error, OSError) or reason(error) is None:
        return None
    return (
        f"a bucket could not be used ({reason(error)}): see that its name is right, that you may use it and that the "
        "network is there, then repeat the command."
    )


def make_writable(folder, remedy: str) -> epath.Path:
    """Makes a folder if it is missing and returns it. Raises UserError, with the remedy, if it can't be written to.

    Call it before long work, so that no result is lost.
    """
    folder = resolve(folder)
    trial = folder / f".writable-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_text("")
        trial.unlink()
    except Exception as error:
        if reason(error) is None:
            raise
        raise UserError(f"Cannot write to the folder {folder} ({reason(error)}); {remedy}.") from error
    return folder


def append(path, text: str) -> None:
    """Adds text to a file, which may be missing. A bucket cannot append: there the whole file is written again."""
    path = resolve(path)
    if is_remote(path):
        path.write_bytes((path.read_bytes() if path.exists() else b"") + text.encode())
    else:
        with path.open("ab") as file:  # one write, so that several processes may append
            file.write(text.encode())


def json_lines(path) -> list[dict]:
    """The objects of a .jsonl file, oldest first; [] if it is missing. A line that a kill cut short is left out."""
    path, records = resolve(path), []
    for line in path.read_bytes().decode(errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]


def save_picture(picture, path, dpi: int = 110) -> None:
    """Writes a Pillow image or a matplotlib figure as a PNG file; neither library can write to a bucket itself."""
    drawn = io.BytesIO()
    if hasattr(picture, "savefig"):
        picture.savefig(drawn, format="png", dpi=dpi)
    else:
        picture.save(drawn, "PNG")
    resolve(path).write_bytes(drawn.getvalue())


def size(path: epath.Path) -> int:
    """The size of a file in bytes. epath's `stat` also looks up the owner's name, and fails where there is none."""
    return path.stat().length if is_remote(path) else os.stat(path).st_size


def changes(folder: str, names: list[str]) -> list[tuple[int, int]]:
    """(size in bytes, when it was changed in seconds) of each of these files of a folder on a disk, no bucket.

    Of tens of thousands of files, as epath's own `stat` takes twenty times as long.
    """
    status = (os.stat(f"{folder}/{name}") for name in names)
    return [(one.st_size, int(one.st_mtime)) for one in status]
