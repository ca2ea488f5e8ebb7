"""What is written down twice agrees: requirements, commands in the READMEs, sizes."""

import ast
import importlib
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import tyro
from conftest import ROOT

import d4rl_tasks

SCRIPTS = [
    name
    for name in ("gtp_offline.py", "gtp_bc.py", "diffusion_ql.py", "consistency_ac.py")
    if (ROOT / name).exists()
]


def inline_metadata(path):
    """{key: value} of the PEP 723 block, by the PEP's own regular expression."""
    pattern = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"
    (match,) = re.finditer(pattern, path.read_text())
    assert match["type"] == "script"
    lines = [line.removeprefix("#").removeprefix(" ") for line in match["content"].splitlines()]
    (requires,) = re.findall(r'(?m)^requires-python = "(.*)"$', "\n".join(lines))
    (listed,) = re.findall(r"(?ms)^dependencies = (\[.*?\])$", "\n".join(lines))
    return {"requires-python": requires, "dependencies": ast.literal_eval(listed)}


def requirements(path):
    """One requirement a line, less comments."""
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("name", SCRIPTS)
def test_inline_metadata_equals_the_requirements_less_pytest(name):
    """So `uv run SCRIPT` and `pip install -r requirements.txt` install the same."""
    listed = inline_metadata(ROOT / name)["dependencies"]
    expected = requirements(ROOT / "requirements.txt")
    tests = [line for line in expected if re.match(r"pytest\b", line)]
    assert len(tests) == 1 and len(set(listed)) == len(listed)
    assert sorted(listed) == sorted(line for line in expected if line not in tests)


@pytest.mark.parametrize("name", SCRIPTS)
def test_inline_metadata_takes_python_from_3_10(name):
    assert inline_metadata(ROOT / name)["requires-python"].startswith(">=3.10")


def test_the_excluded_versions_stay_excluded():
    """mujoco 4.0 integrates free joints otherwise than D4RL's; gymnasium 1 has the -v4 robots."""
    listed = requirements(ROOT / "requirements.txt")
    assert {"mujoco>=3.2,<4", "gymnasium[mujoco]>=1.0,<2"} <= set(listed)


def commands_in(text):
    """(script, arguments) of every `python X.py ...` and `uv run X.py ...` in code blocks and code
    spans of Markdown, and in indented lines of a docstring."""
    text = text.replace("$seed", "0")
    blocks = re.findall(r"(?ms)^```\w*\n(.*?)^```", text) + re.findall(r"(?m)^    python .*$", text)
    spans = re.findall(r"`([^`]+)`", re.sub(r"(?ms)^```.*?^```", "", text))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in lines + [span.replace("\n", " ") for span in spans]:
        for command in re.split(r"&&|;|\|", line):
            words = shlex.split(command, comments=True)
            position = [n for n, word in enumerate(words) if word.endswith(".py")]
            started = re.match(r"\s*(\S*/)?(python3?|uv run)\s", command)
            if position and started:
                found.append((words[position[0]], words[position[0] + 1 :]))
    return found


def docstring(path):
    """With its continued lines joined, indented as the first of them."""
    return re.sub(r"\\\n\s*", " ", ast.get_docstring(ast.parse(path.read_text())) or "")


COMMANDS = [
    command
    for path in (ROOT / "README.md", ROOT / "ablations/README.md")
    if path.exists()
    for command in commands_in(path.read_text())
]
COMMANDS += [c for path in ROOT.glob("ablations/*.py") for c in commands_in(docstring(path))]


@pytest.mark.parametrize(
    ("script", "arguments"), COMMANDS, ids=lambda v: v if isinstance(v, str) else " ".join(v)
)
def test_a_printed_command_parses(script, arguments, monkeypatch):
    """The file exists; a script accepts the arguments, and the tasks in them exist."""
    assert (ROOT / script).is_file()
    if "--help" in arguments:
        return
    if script in SCRIPTS:
        module = importlib.import_module(script.removesuffix(".py"))
        args = tyro.cli(module.Args, args=arguments)
        if args.resume is None:
            module.resolve_args(replace(args, device="cpu"))
    elif script.startswith("ablations/"):
        monkeypatch.syspath_prepend(ROOT / "ablations")
        module = importlib.import_module(Path(script).stem)
        args = tyro.cli(getattr(module, "Arguments", None) or module.Options, args=arguments)
        if task := getattr(args, "env_id", None):
            d4rl_tasks.check_env_id(task)


@pytest.mark.parametrize("path", sorted(ROOT.glob("ablations/*.py")), ids=lambda path: path.name)
def test_every_ablation_is_in_its_readme(path):
    if path.name not in ("experiment.py", "paper.py"):
        assert f"ablations/{path.name}`" in (ROOT / "ablations/README.md").read_text()


def test_the_readme_has_commands():
    if not (ROOT / "README.md").exists():
        pytest.skip("no README.md yet")
    assert "gtp_offline.py" in [script for script, _ in COMMANDS]
    assert re.search(r"python -m pytest$", (ROOT / "README.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_algorithm_script_is_over_750_lines_of_100_characters(name):
    lines = (ROOT / name).read_text().splitlines()
    assert len(lines) <= 750 and max(map(len, lines)) <= 100


def test_the_algorithm_itself_is_under_300_lines():
    """From the networks to the critic."""
    tree = ast.parse((ROOT / "gtp_offline.py").read_text())
    lines = {
        node.name: node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    }
    assert lines["td_target"].end_lineno - lines["FlowMap"].lineno < 300
