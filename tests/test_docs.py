"""The README and docs/ say what is true: their commands are understood, links resolve, and tables equal the records."""

import argparse
import ast
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jax_ssl import __main__ as command
from jax_ssl import config, methods
from jax_ssl.commands import evaluate
from jax_ssl.study import ablate, rulers, seals

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
QUESTIONS = ("data", "runs", "evaluation", "pictures", "collapse", "pods", "performance", "weights", "large_batches",
             "architecture", "adding_a_method", "evidence", "contributing")  # fmt: skip
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
EXAMPLE = re.compile(r"(?:^`([\w/]+\.py)`\n\n```python\n|^```python\n# ([\w/]+\.py)\n)(.*?)^```$", re.M | re.S)
OURS = re.compile(r"-m jax_ssl\b|\bjax-ssl\b|launch\.sh")
LOOP = re.compile(r"^for (\w+) in ([^;]+); do$", re.M)
ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "<"}  # of one command of a line
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced block."""
    return [(language, content) for _, language, content in FENCE.findall(text)]


def commands_in(line: str) -> list[list[str]]:
    """The words behind `python -m jax_ssl` or `jax-ssl` of each of the commands in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    parts, found = [[]], []
    for word in lexer:
        parts += [[]] if word in ENDS else []
        parts[-1] += [] if word in ENDS else [word]
    for words in parts:
        if words and words[0].endswith("launch.sh") and "--" in words:
            found.append(words[words.index("--") + 1 :])
        for i, word in enumerate(words):
            if word.endswith("jax-ssl") or (word == "jax_ssl" and words[i - 1] == "-m"):
                found.append(words[i + 1 :])
                break
    return found


def commands(text: str) -> list[list[str]]:
    """The arguments of every jax_ssl command: in fenced blocks, and in `inline code` that names a config or a run."""
    found = []
    for language, content in blocks(text):
        for line in unrolled(content.replace("\\\n", " ")) if language != "python" else ():
            found += commands_in(line) if OURS.search(line) else []
    inline = [code.removeprefix("python -m jax_ssl ") for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text))]
    verbs = "|".join(command.VERBS)
    return found + [shlex.split(code) for code in inline if re.match(rf"({verbs}) --", code) and not is_sketch(code)]


def unrolled(content: str) -> list[str]:
    """Its lines; one with the variable of a loop, `for NAME in A B; do`, comes once with each of the values."""
    lines = content.splitlines()
    for name, values in LOOP.findall(content):
        lines = [new for line in lines for new in dict.fromkeys(line.replace(f"${name}", x) for x in values.split())]
    return lines


def is_sketch(code: str) -> bool:
    """Inline code that names a flag in passing (`plan --heaviest`) or with a placeholder (`seals --record=FILE`)."""
    return "--config=" not in code and "--run=" not in code and "--suite=" not in code


def understand(arguments: list[str]) -> None:
    """Parses the arguments and loads their config with its overrides, as the program would; raises if it can't."""
    if arguments == ["--version"]:
        return
    args, rest = command.parser().parse_known_args(arguments, argparse.Namespace(given=set()))
    assert all(word.startswith("--config.") and "=" in word for word in rest), f"{args.verb} has no {rest}"
    if args.verb == "evaluate":
        evaluate.what_is_measured(args)
        rest, options = rulers.split_overrides(rest, args.task.split(","))
        for name, overrides in options.items():
            rulers.options_of(name, overrides)
    config.load(getattr(args, "config", None) or "quickstart", rest)
    if getattr(args, "suite", None):
        from jax_ssl.configs.ablations import SUITES

        assert args.suite in SUITES, f"there is no suite {args.suite}"


def python_blocks(page: Path) -> list[str]:
    return [content for language, content in blocks(page.read_text()) if language == "python"]


def write_examples(page: Path, folder: Path) -> None:
    """The Python blocks of a page that are files, as files: `# PATH` is their first line, or `PATH` stands before."""
    for before, inside, code in EXAMPLE.findall(page.read_text()):
        path = folder / (before or inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def test_every_question_has_its_page_which_opens_with_a_command():
    for name in QUESTIONS:
        text = (ROOT / "docs" / f"{name}.md").read_text()
        assert re.match(r"# .+\n\n```bash\n", text), name
        assert f"docs/{name}.md" in (ROOT / "README.md").read_text(), name


@by_page
def test_commands_are_understood(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_examples(page, tmp_path)
    for arguments in commands(page.read_text()):
        try:
            understand(arguments)
        except (Exception, SystemExit) as error:
            pytest.fail(f"{page.name}: {shlex.join(arguments)}: {error}")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.name)
def test_commands_in_the_heads_of_configs_are_understood(path):
    head = ast.get_docstring(ast.parse(path.read_text())) or ""
    for line in re.findall(r"^    (python -m jax_ssl .+)$", head.replace("\\\n", " "), re.M):
        for arguments in commands_in(line):
            understand(arguments)


@pytest.mark.parametrize("line", [
    "python -m jax_ssl train --config=simclr:tiny --wrkdir=x", "jax-ssl train --config=simclr:huge",
    "python -m jax_ssl train --config=simclr:tiny --config.optim.base_lrr=1", "python -m jax_ssl trane",
    "A=1 python -m jax_ssl evaluate --tasks=knn",
    "tpu_scripts/launch.sh --until-done -- train --config=simclrr", "python -m jax_ssl ablate --suite=nothing | head",
    "python -m jax_ssl train \\\n --config=simclr:tiny --config.epochs 3",
])  # fmt: skip
def test_a_wrong_command_is_found(line):
    (arguments,) = commands(f"```bash\ncd x && {line}\n```\n")
    with pytest.raises((Exception, SystemExit)):
        understand(arguments)


def test_commands_are_found_in_lines_and_tables():
    text = "```bash\njax-ssl seals | head -3; .venv/bin/python -m jax_ssl plan --published  # told\n```\n"
    text += "| `train --config=simclr:tiny` | `plan --quick` |\n"
    assert commands(text) == [["seals"], ["plan", "--published"], ["train", "--config=simclr:tiny"]]
    loop = "```bash\nfor run in a b; do\n    jax-ssl report --run=$run\ndone\n```\n"
    assert commands(loop) == [["report", "--run=a"], ["report", "--run=b"]]


@by_page
def test_links_resolve(page):
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(\s*([^)\s]+)\s*\)", text):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(path), f"{page.name}: {path.name} has no heading for #{anchor}"


@by_page
def test_no_path_of_a_machine(page):
    found = re.findall(r"(?<![\w.])/(?:work|root|tmp|Users|home(?!/me/))/\S*", page.read_text())
    assert not found, found


@by_page
def test_files_that_are_named_exist(page):
    if page.name == "CHANGELOG.md":
        return
    known = {"jax_ssl/methods/mine.py", "configs/mine.py"}
    for name in re.findall(r"`((?:jax_ssl|configs|tests|tpu_scripts|docs)/[\w./]+)`", page.read_text()):
        assert (ROOT / name).exists() or name in known or "NAME" in name, f"{page.name} names {name}"


@by_page
def test_python_examples_compile_and_import_what_there_is(page):
    for content in python_blocks(page):
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("jax_ssl"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{node.module}.{alias.name}")


def test_the_readme_is_one_page():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 220 and len(text) <= 14_000
    begin = "\n```bash\npython3 -m venv .venv && .venv/bin/pip install -q -e "
    assert f"{begin}. && .venv/bin/python -m jax_ssl train --config=configs/quickstart.py\n```\n" in text
    assert f'{begin}".[test]" && .venv/bin/python -m pytest -q -n 2\n```\n' in text


def test_the_table_of_methods_is_what_the_records_say():
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| \[.+https://arxiv.+`train --config=(\w+):cifar` \| (.+) \|$", text, re.M)
    assert sorted(name for name, _ in rows) == seals.methods()
    assert f"**{len(rows)} methods, one training loop.**" in text
    runs = {run["method"]: run for run in seals.read("runs.jsonl") if run["seed"] == 0}
    for name, cells in rows:
        assert cells == (measured_cells(runs[name]) if name in runs else "not run | |"), name


def measured_cells(run: dict) -> str:
    minutes, numbers = run["seconds"] / 60, run["results"]
    return f"{minutes:.0f} | {gain(numbers, 'knn@20')} | {gain(numbers, 'linear')}"


def gain(numbers: dict, task: str) -> str:
    """The better untrained network and the better of student and teacher, in per cent."""
    best = lambda *names: max(value for key, value in numbers.items() if key.startswith(names))
    return f"{100 * best(f'{task} untrained'):.1f} → {100 * best(f'{task} student', f'{task} teacher'):.1f}"


def test_the_page_of_evidence_is_what_seals_writes(tmp_path, monkeypatch, capsys):
    page = ROOT / "docs" / "evidence.md"
    copy = Path(shutil.copy(page, tmp_path))
    monkeypatch.setattr(seals, "EVIDENCE", copy)
    assert command.main(["seals"]) == 0 and "| simclr " in capsys.readouterr().out
    assert copy.read_text() == page.read_text(), "run `python -m jax_ssl seals`"


@pytest.mark.parametrize("suite", ["history", "longer"])
def test_the_history_is_that_of_the_records(suite):
    from jax_ssl.configs.ablations import SUITES

    found = {cell: {} for cell in SUITES[suite].cells}
    for record in seals.read("ablations.jsonl"):
        if record["suite"] == suite:
            found[record["cell"]][record["seed"]] = record
    assert ablate.table(SUITES[suite], found) in (ROOT / "docs" / "history.md").read_text()


@pytest.mark.parametrize("line, told", [("ablate --list", "crop+colour"), ("plan --published", "SimCLR, ResNet-50")])
def test_short_commands_run(line, told, capsys):
    assert any(f"python -m jax_ssl {line}" in page.read_text() for page in PAGES)
    assert command.main(shlex.split(line)) == 0
    assert told in capsys.readouterr().out


def test_the_example_method_trains(tmp_path, monkeypatch):
    page = ROOT / "docs" / "adding_a_method.md"
    write_examples(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "jax_ssl" / "methods")])
    names = {"SMALL": {}}
    exec(next(content for content in python_blocks(page) if content.startswith("SMALL[")), names)
    flags = ["--config=configs/mine.py:tiny", "--workdir=run", "--config.batch_size=32", "--config.epochs=0.03"]
    off = ["--config.probe_every=0", "--config.evaluate_at_end=False"]
    assert command.main(["train", *flags, *off, *names["SMALL"]["mine"]]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"uniformity"' in lines


@pytest.mark.slow
def test_the_commands_of_a_first_hour_run(tmp_path):
    lines = ["train --config=configs/mae.py:tiny --workdir=runs/mae", "visualize --run=runs/mae --what=reconstruction",
             "evaluate --run=runs/mae --task=knn --weights=student,untrained",
             'train --config=configs/byol.py:tiny --config.method.predictor="()"']  # fmt: skip
    told = ""
    for line in lines:
        assert any(f"python -m jax_ssl {line}" in page.read_text() for page in PAGES), line
        words = [sys.executable, "-m", "jax_ssl", *shlex.split(line)]
        environment = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        told += done.stdout + done.stderr
    assert (tmp_path / "runs/mae/pictures/reconstruction_student.png").exists()
    assert re.search(r"byol looks collapsed .*method\.predictor", told)
