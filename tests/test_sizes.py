"""Every file is written to be read: the bounds of CONTRIBUTING.md, and the measure itself."""

import ast
import difflib
import re
from functools import lru_cache

import density
import pytest
from conftest import ROOT
from shared_blocks import SCRIPTS

FOLDERS = (".", "offline_tasks", "sweeps", "ablations", "benchmarks", "docs")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py"))
OTHER_FILES = [path for path in FILES if path.name not in SCRIPTS]
# ablations that replace a function of gtp_offline.py
STRUCTURAL = ("ode_solver.py", "linear_q.py", "shortcut.py", "meanflow.py")

MOST_TOKENS_SCRIPT = 10.5
MOST_TOKENS = 11.0
MOST_WIDE = 0.08
MOST_FUNCTION_LINES = 60
MOST_LINES_SCRIPT = dict.fromkeys(SCRIPTS, 1632) | {"gtp_bc.py": 1412}
MOST_LINES_ABLATION = 120
MOST_COLUMNS = 100
MOST_DIFFERENT = dict.fromkeys(SCRIPTS[1:], 0.35) | {"gtp_bc.py": 0.20}


def name_of(path):
    return str(path.relative_to(ROOT))


@lru_cache
def measured(path):
    return density.measure(path.read_text(encoding="utf-8"))


def test_all_folders_are_looked_at():
    assert {path.parent.name for path in FILES} == {ROOT.name, *FOLDERS[1:]}
    assert set(SCRIPTS) <= {path.name for path in FILES}


# ---- the files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_at_most_10_5_tokens_a_line(name):
    assert measured(ROOT / name).tokens_per_line <= MOST_TOKENS_SCRIPT


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_few_wide_lines(name):
    assert measured(ROOT / name).wide_share <= MOST_WIDE


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short(name):
    assert measured(ROOT / name).lines <= MOST_LINES_SCRIPT[name]


@pytest.mark.parametrize("path", OTHER_FILES, ids=name_of)
def test_another_file_has_at_most_11_tokens_a_line(path):
    assert measured(path).tokens_per_line <= MOST_TOKENS


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_function_is_long(path):
    found = measured(path)
    assert found.longest_function_lines <= MOST_FUNCTION_LINES, found.longest_function


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_formatter_is_not_switched_off(path):
    assert measured(path).format_switches == 0


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_line_is_over_100_columns(path):
    """Also in docstrings and comments, which the formatter leaves alone."""
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= MOST_COLUMNS


@pytest.mark.parametrize("name", STRUCTURAL)
def test_a_structural_ablation_is_short(name):
    assert measured(ROOT / "ablations" / name).lines <= MOST_LINES_ABLATION


def test_the_algorithm_itself_is_under_300_lines():
    """From the networks to the critic."""
    tree = ast.parse((ROOT / "gtp_offline.py").read_text())
    nodes = {node.name: node for node in tree.body if hasattr(node, "name")}
    assert nodes["td_target"].end_lineno - nodes["FlowMap"].lineno < 300


# ---- the family ----------------------------------------------------------------------------------


def own_lines(name):
    """The lines of a script less its module docstring and its table of tasks."""
    text = (ROOT / name).read_text()
    module = ast.parse(text)
    assert ast.get_docstring(module) is not None
    dropped = set()
    for node in module.body:
        targets = [ast.unparse(target) for target in getattr(node, "targets", ())]
        if node is module.body[0] or "TASKS" in targets:
            dropped.update(range(node.lineno, node.end_lineno + 1))
    return [line for number, line in enumerate(text.splitlines(), 1) if number not in dropped]


@pytest.mark.parametrize("name", SCRIPTS[1:])
def test_a_script_differs_from_the_canonical_one_by_its_algorithm_only(name):
    lines = own_lines(name)
    diff = difflib.unified_diff(own_lines("gtp_offline.py"), lines, n=0, lineterm="")
    own = [line for line in diff if line.startswith("+") and not line.startswith("+++")]
    assert len(own) / len(lines) <= MOST_DIFFERENT[name]


# ---- the rules that people read ------------------------------------------------------------------


def test_contributing_states_the_same_bounds():
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    stated = [
        f"{MOST_TOKENS_SCRIPT:g} tokens per code line",
        f"{MOST_TOKENS:g} elsewhere",
        f"{MOST_WIDE:.0%} of its code lines over {density.WIDE} columns".replace("%", " %"),
        f"no function over {MOST_FUNCTION_LINES} lines",
        f"at most {MOST_LINES_SCRIPT['gtp_offline.py']} lines",
        f"{MOST_LINES_SCRIPT['gtp_bc.py']} for `gtp_bc.py`",
        f"in at most {MOST_LINES_ABLATION} lines",
        f"at most {MOST_COLUMNS} columns",
        f"{MOST_DIFFERENT['gtp_bc.py']:.0%} in `gtp_bc.py`".replace("%", " %"),
        f"{MOST_DIFFERENT['diffusion_ql.py']:.0%} in the others".replace("%", " %"),
    ]
    assert [words for words in stated if words not in text] == []


def test_the_linter_bounds_complexity_and_spares_no_file():
    text = (ROOT / "pyproject.toml").read_text()
    (selected,) = re.findall(r"(?m)^select = (\[.*?\])$", text)
    assert {"C90", "PLR0912", "PLR0915", "N"} <= set(ast.literal_eval(selected))
    assert "max-complexity = 10\n" in text
    assert not set(SCRIPTS) & set(re.findall(r"[\w.]+\.py", text))


# ---- the measure ---------------------------------------------------------------------------------

SOURCE = '''\
"""A docstring
of two lines."""

# a comment


def outer(a):  # 6 tokens: def outer ( a ) :
    """Not counted."""

    def inner():  # 5 tokens
        return 1  # 2 tokens

    text = """one token
on two lines"""  # 3 tokens
    return inner() + a, text  # 8 tokens
'''


def test_tokens_are_counted_by_hand():
    """24 tokens on 6 lines."""
    assert density.measure(SOURCE).tokens_per_line == 24 / 6


def test_functions_are_measured_with_their_nested_ones():
    found = density.measure(SOURCE)
    assert (found.longest_function, found.longest_function_lines) == ("outer", 9)
    assert found.lines == 15


def test_wide_lines_are_code_lines_over_90_columns():
    wide = "x = " + "1" * 87
    narrow = "x = " + "1" * 86
    comment = "# " + "a" * 95
    assert density.measure("\n".join([wide, narrow, comment])).wide_share == 1 / 2


def test_switches_of_the_formatter_are_comments():
    assert density.measure("x = 1  # fmt: skip\n# fmt: off\ny = 'fmt: skip'\n").format_switches == 2


def test_an_f_string_is_one_token_on_every_python():
    source = "x = f'{a + b} and {f(\"{c}\")}'\n"
    assert density.measure(source).tokens_per_line == 3


def test_a_file_without_code_has_no_density():
    found = density.measure("# nothing\n")
    assert (found.tokens_per_line, found.wide_share, found.longest_function_lines) == (0, 0, 0)


def test_the_measure_prints_a_line_for_each_file(tmp_path, capsys):
    (tmp_path / "a.py").write_text(SOURCE)
    assert density.main([str(tmp_path / "a.py")]) == 0
    assert "4.00 tokens per code line" in capsys.readouterr().out
