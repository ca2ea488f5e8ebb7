"""What README.md, docs/ and the docstrings say is so: commands, links, numbers, keys, sizes."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import pytest
import tyro
from conftest import ROOT, make_dataset
from shared_blocks import SCRIPTS

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES.append(ROOT / "ablations/README.md")
MOST_WORDS = 1000


def name_of(path):
    return str(path.relative_to(ROOT))


def without_blocks(text):
    return re.sub(r"(?ms)^```.*?^```", "", text)


def test_the_readme_is_short():
    assert len(README.read_text().split()) <= MOST_WORDS


# ---- commands ------------------------------------------------------------------------------------


def commands_in(text):
    """(script, arguments) of every `python X.py ...` and `uv run X.py ...` in code blocks and code
    spans of Markdown, and in indented lines of a docstring."""
    text = text.replace("$seed", "0")
    blocks = re.findall(r"(?ms)^```\w*\n(.*?)^```", text) + re.findall(r"(?m)^    python .*$", text)
    spans = re.findall(r"`([^`]+)`", without_blocks(text))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in lines + [span.replace("\n", " ") for span in spans]:
        for command in re.split(r"&&|;|\|", line):
            if not re.match(r"\s*(\S*/)?(python3?|uv run)\s+(?!-c)", command):
                continue
            words = shlex.split(command, comments=True)
            position = [n for n, word in enumerate(words) if word.endswith(".py")]
            if position:
                found.append((words[position[0]], tuple(words[position[0] + 1 :])))
    return found


def docstring(path):
    """With its continued lines joined, indented as the first of them."""
    return re.sub(r"\\\n\s*", " ", ast.get_docstring(ast.parse(path.read_text())) or "")


def all_commands():
    found = []
    for path in PAGES:
        found += commands_in(path.read_text())
    for folder in (".", "ablations", "benchmarks"):
        for path in sorted((ROOT / folder).glob("*.py")):
            found += commands_in(docstring(path))
    return found


COMMANDS = sorted(set(all_commands()))


@lru_cache
def help_of(script):
    command = [sys.executable, str(ROOT / script), "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def of_a_package(env_id):
    """Whether a task needs a package that need not be there: one's own, Minari's, OGBench's."""
    benchmark = importlib.import_module("offline_tasks").benchmark
    return ":" in env_id or benchmark(env_id) in ("Minari", "OGBench")


def check_task(env_id):
    """Refuses a task that does not exist; of another package's, only the form is known."""
    if env_id and not of_a_package(env_id):
        importlib.import_module("offline_tasks").check_env_id(env_id)


def parse_script(script, arguments):
    """As the script does: once for the task, once with the task's defaults."""
    module = importlib.import_module(script.removesuffix(".py"))
    args = tyro.cli(module.Args, args=arguments)
    if args.resume:
        return
    known = {"env_id": args.env_id, "dataset_path": args.dataset_path, "device": "cpu"}
    if hasattr(args, "literal"):
        known["literal"] = args.literal
    if of_a_package(args.env_id):
        known["env_id"] = ""
        known["dataset_path"] = args.dataset_path or "its own"
        arguments = [word for word in arguments if word not in ("--env-id", args.env_id)]
    default = module.default_args(**known)
    module.check_args(replace(tyro.cli(module.Args, args=arguments, default=default), device="cpu"))


@pytest.mark.parametrize(
    ("script", "arguments"), COMMANDS, ids=lambda v: v if isinstance(v, str) else " ".join(v)
)
def test_a_printed_command_parses(script, arguments, monkeypatch):
    """The file exists, takes the arguments, and the tasks in them exist."""
    assert (ROOT / script).is_file()
    arguments = [word for word in arguments if word != "--help"]
    if script in SCRIPTS:
        parse_script(script, arguments)
    elif script.startswith("tests/"):  # they have no --help
        assert all(word in (ROOT / script).read_text() for word in arguments)
    elif script.startswith("ablations/"):
        monkeypatch.syspath_prepend(ROOT / "ablations")
        module = importlib.import_module(Path(script).stem)
        options = tyro.cli(module.Arguments, args=arguments)
        check_task(getattr(options, "env_id", ""))
    elif script == "sweep.py":
        options = importlib.import_module("sweep").parse(arguments)
        assert (ROOT / options.sweep).is_file() or "SWEEP" in arguments
    else:
        flags = [word.partition("=")[0] for word in arguments if word.startswith("--")]
        assert [flag for flag in flags if flag not in help_of(script)] == []


def test_there_are_commands():
    assert set(SCRIPTS) <= {script for script, _ in COMMANDS}
    assert {"evaluate.py", "export_policy.py"} <= {script for script, _ in COMMANDS}


@pytest.mark.parametrize("path", sorted(ROOT.glob("ablations/*.py")), ids=name_of)
def test_every_ablation_is_in_its_readme(path):
    if "__main__" in path.read_text():  # else others import it
        assert f"ablations/{path.name}`" in (ROOT / "ablations/README.md").read_text()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_a_flag_that_is_named_exists(path):
    """Flags in code spans; CHANGELOG.md also names those that are gone."""
    if path.name == "CHANGELOG.md":
        pytest.skip("names flags that are gone")
    text = without_blocks(path.read_text())
    spans = re.findall(r"`(--[^`]+)`", text)
    named = {word for span in spans for word in re.findall(r"--[a-z][a-z0-9-]+", span)}
    known = set()
    for script in SCRIPTS:
        for field in fields(importlib.import_module(script.removesuffix(".py")).Args):
            flag = field.name.replace("_", "-")
            known |= {f"--{flag}", f"--no-{flag}"}
    tools = [*sorted(ROOT.glob("benchmarks/*.py")), *sorted(ROOT.glob("ablations/*.py"))]
    for tool in [*tools, *sorted(ROOT.glob("*.py"))]:
        words = re.findall(r"^    (\w+):", tool.read_text(), re.MULTILINE)
        known |= {f"--{word.replace('_', '-')}" for word in words}
        known |= set(re.findall(r"\"(--[a-z-]+)\"", tool.read_text()))
    assert sorted(named - known) == []


# ---- links and numbers ---------------------------------------------------------------------------


def anchors(path):
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", without_blocks(path.read_text()))
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_to_what_is_there(path):
    text = without_blocks(path.read_text())
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked), target


def test_every_page_of_docs_is_linked_in_the_readme():
    missing = [
        page.name
        for page in ROOT.glob("docs/*.md")
        if f"docs/{page.name}" not in README.read_text()
    ]
    assert missing == []


def rows_of(letter):
    found = re.findall(rf"(?m)^\| {letter}(\d+) \|", (ROOT / "docs/differences.md").read_text())
    return [int(number) for number in found]


@pytest.mark.parametrize("letter", ["D", "S", "Q"])
def test_differences_are_numbered_without_gaps(letter):
    assert rows_of(letter) == list(range(1, len(rows_of(letter)) + 1))
    assert len(rows_of(letter)) > 9


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_numbers_in_a_script_are_those_of_the_page(name):
    """D10 or (D10), S4, Q2 in comments and docstrings."""
    for letter, number in re.findall(r"\b([DSQ])(\d+)\b", (ROOT / name).read_text()):
        assert int(number) in rows_of(letter), f"{letter}{number}"


def strings(path):
    """Every string in a file, of an f-string the parts between its values."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def test_the_messages_of_troubleshooting_are_those_of_the_code():
    """In the first column; words in capitals stand for values."""
    text = (ROOT / "docs/troubleshooting.md").read_text()
    table = text.partition("## Messages")[2].partition("\n## ")[0]
    messages = re.findall(r"(?m)^\| `([^`]+)` \|", table)
    assert len(messages) > 12
    paths = [*sorted(ROOT.glob("*.py")), *sorted(ROOT.glob("offline_tasks/*.py"))]
    said = [string for path in paths for string in strings(path)]
    for message in messages:
        parts = re.split(r"\b[A-Z][A-Z_]+\b|\b\w+\.py|\b[\d.]+\b", message)
        for part in [part.strip() for part in parts if len(part) > 5]:
            assert any(part in string for string in said), part


# ---- keys and tags -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("readme") / "data.hdf5"
    with h5py.File(path, "w") as file:
        for key, array in make_dataset().items():
            file[key] = array
    return path


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_key_and_tag_is_explained(name, data_file, tmp_path):
    """Of a short run: results.json and TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    module = importlib.import_module(name.removesuffix(".py"))
    args = module.default_args(dataset_path=str(data_file), device="cpu", num_updates=4)
    args = replace(args, run_dir=str(tmp_path / "run"), batch_size=16, hidden_dim=16)
    results = module.train(args)
    explained = set(re.findall(r"`([^`]+)`", (ROOT / "docs/metrics.md").read_text()))
    assert sorted(results.keys() - explained) == []
    assert sorted(results["dataset"].keys() - explained) == []
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert len(tags) > 5
    assert sorted(tags - explained) == []
    assert sorted({f"losses/{key}" for key in results["losses"][-1]} - explained - tags) == []
    in_row = {key for key in results["last"] if f"eval/{key}" not in explained}
    assert sorted(in_row - explained) == []


def test_the_readmes_lines_of_python_work(data_file, tmp_path, monkeypatch):
    """As they stand, but for fewer updates."""
    (block,) = re.findall(r"(?ms)^```python\n(.*?)^```", README.read_text())
    assert len([line for line in block.splitlines() if line]) <= 5
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.hdf5").write_bytes(data_file.read_bytes())
    names = {"obs": np.zeros(3, np.float32)}
    exec(block.replace("num_updates=100_000", "num_updates=2, eval_freq=2"), names)
    assert names["action"].shape == (2,)
