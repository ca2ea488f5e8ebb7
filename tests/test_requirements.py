"""What is written down twice agrees: requirements, versions of Python and of the linter."""

import ast
import re

import pytest
from conftest import ROOT
from shared_blocks import SCRIPTS


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


def imported(path, seen):
    """The top-level names of all modules that a file imports, in functions too, and those of the
    project's modules that it leads to."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            modules = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        for module in modules:
            names |= {module.split(".")[0], module.split(".")[-1]}
            own = ROOT / module.replace(".", "/")
            for file in (own.with_suffix(".py"), own / "__init__.py"):
                if file.is_file() and file not in seen:
                    seen.add(file)
                    names |= imported(file, seen)
    return names


def name_in(requirement):
    return re.match(r"[\w-]+", requirement)[0]


@pytest.mark.parametrize("name", SCRIPTS)
def test_inline_metadata_lists_what_the_script_imports(name):
    """Of requirements.txt, which also has what report.py, sweep.py and the tests need."""
    listed = inline_metadata(ROOT / name)["dependencies"]
    required = requirements(ROOT / "requirements.txt")
    names = imported(ROOT / name, set())
    assert len(set(listed)) == len(listed)
    assert sorted(listed) == sorted(line for line in required if name_in(line) in names)


def test_requirements_have_what_reports_and_sweeps_need_and_not_what_is_optional():
    names = {name_in(line) for line in requirements(ROOT / "requirements.txt")}
    assert {"scipy", "rich", "tomli", "pytest"} <= names
    assert "scipy" in imported(ROOT / "report.py", set())
    listed = names | {name_in(line) for line in requirements(ROOT / "requirements-dev.txt")[1:]}
    assert not listed & {"wandb", "rliable", "pandas"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_inline_metadata_takes_the_python_versions_of_the_project(name):
    text = (ROOT / "pyproject.toml").read_text()
    (requires,) = re.findall(r'(?m)^requires-python = "(.*)"$', text)
    assert requires.startswith(">=3.10")
    assert inline_metadata(ROOT / name)["requires-python"] == requires


def test_the_excluded_versions_stay_excluded():
    """mujoco 4.0 integrates free joints otherwise than D4RL's; gymnasium 1 has the -v4 robots."""
    listed = requirements(ROOT / "requirements.txt")
    assert {"mujoco>=3.2,<4", "gymnasium[mujoco]>=1.0,<2"} <= set(listed)


def test_the_hooks_use_the_pinned_linter():
    (pinned,) = [line for line in requirements(ROOT / "requirements-dev.txt") if "ruff" in line]
    used = re.findall(r"ruff==[\d.]+", (ROOT / ".pre-commit-config.yaml").read_text())
    assert used
    assert set(used) == {pinned}


def test_the_workflow_runs_the_projects_own_check_on_the_oldest_and_the_newest_python():
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    assert "run: .ci/run\n" in text
    assert 'python-version: ["3.10", "3.13"]\n' in text


def test_the_projects_own_check_finds_its_command_in_the_readme():
    """.ci/run takes the first line of the README that ends in `python -m pytest`."""
    assert "'python -m pytest$' README.md" in (ROOT / ".ci/run").read_text()
    found = re.findall(r"(?m)^.*python -m pytest$", (ROOT / "README.md").read_text())
    assert len(found) == 1
    assert found[0].startswith("python3 -m venv .venv && ")
