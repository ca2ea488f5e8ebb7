"""The blocks that the algorithm scripts share are identical, and the tool that says so works."""

import re
import shutil

import pytest
import shared_blocks
from conftest import ROOT
from shared_blocks import SCRIPTS, check, read_blocks

OTHERS = [name for name in SCRIPTS[1:] if (ROOT / name).exists()]

CANONICAL = """\
first = 1
# --- shared: one ---
def one():
    return 1
# --- end shared ---
class Args:
    # --- shared: two ---
    two: int = 2
    # --- end shared ---
"""
OTHER = CANONICAL.replace("first = 1", "second = 2").replace("class Args:", "class Args(Base):")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """write(**scripts): the folder of two scripts with the blocks `one` and `two`."""
    monkeypatch.setattr(shared_blocks, "LACKS", {})
    monkeypatch.setattr(shared_blocks, "ROOT", tmp_path)

    def write(canonical=CANONICAL, other=OTHER, third=None):
        texts = (canonical, other, third)
        for name, text in zip(
            ("gtp_offline.py", "gtp_bc.py", "diffusion_ql.py"), texts, strict=True
        ):
            if text is not None:
                (tmp_path / name).write_bytes(text.encode())
        return tmp_path

    return write


# ---- the repository --------------------------------------------------------------------------


def test_shared_blocks_are_identical():
    assert check(ROOT) == []


@pytest.mark.parametrize("name", [n for n in SCRIPTS if (ROOT / n).exists()])
def test_every_script_has_at_least_three_shared_blocks(name):
    blocks, faults = read_blocks((ROOT / name).read_text(), name)
    assert len(blocks) >= 3 and faults == []


def test_the_tool_works_on_a_copy_of_the_repositorys_scripts(tmp_path):
    """--write mends an altered block of every script and leaves all else as it was."""
    for name in SCRIPTS:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path)
    check(tmp_path, write=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in OTHERS:
        path = tmp_path / name
        text = path.read_text()
        assert text.count("def load_transitions(") == 1
        path.write_text(text.replace("def load_transitions(", "def load_transition("))
    assert len(check(tmp_path)) == len(OTHERS)
    assert check(tmp_path, write=True) == [] == check(tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


# ---- the tool, on small scripts --------------------------------------------------------------


def test_identical_blocks_pass_whatever_is_between_them(folder):
    assert check(folder()) == []


def test_one_script_alone_has_nothing_to_differ_from(folder):
    assert check(folder(other=None)) == []


@pytest.mark.parametrize(
    ("altered", "reported"),
    [
        ("return 2", "-    return 1\n+    return 2"),
        ("return 1  ", "+    return 1  "),
        ("return 1\n    # why", "+    # why"),
    ],
)
def test_an_altered_block_is_reported_with_its_line(folder, altered, reported):
    (fault,) = check(folder(other=OTHER.replace("return 1", altered)))
    assert fault.startswith("gtp_bc.py:2: block 'one' differs") and fault.endswith(reported)


def test_the_indentation_of_a_block_counts(folder):
    (fault,) = check(folder(other=OTHER.replace("    two: int", "  two: int")))
    assert "'two' differs" in fault


def test_line_ends_count(folder):
    assert len(check(folder(other=OTHER.replace("\n", "\r\n")))) == 2


def test_write_copies_the_canonical_blocks_and_nothing_else(folder):
    root = folder(other=OTHER.replace("return 1", "return 2\n    # longer").replace("= 2", "= 3"))
    assert check(root, write=True) == [] == check(root)
    assert (root / "gtp_bc.py").read_text() == OTHER.replace("second = 2", "second = 3")
    assert (root / "gtp_offline.py").read_text() == CANONICAL


def test_a_missing_block_is_reported_even_where_its_code_is_there(folder):
    """Only the markers of `one` are gone."""
    lines = OTHER.splitlines(keepends=True)
    faults = check(folder(other="".join(lines[:1] + lines[2:4] + lines[5:])))
    assert "gtp_bc.py: block 'one' is missing" in faults


def test_a_script_may_lack_a_block_that_is_listed(folder, monkeypatch):
    monkeypatch.setattr(shared_blocks, "LACKS", {"gtp_bc.py": {"one"}})
    lines = OTHER.splitlines(keepends=True)
    assert check(folder(other="".join(lines[5:]), third=OTHER)) == []


def test_a_block_of_one_script_only_is_reported(folder):
    """Unknown to all others, it is not shared; a mistyped name is one as well."""
    faults = check(folder(other=OTHER.replace("shared: one", "shared: oen")))
    assert "gtp_bc.py: no other script has block 'oen'" in faults
    assert "gtp_bc.py: block 'one' is missing" in faults


def test_a_block_that_the_canonical_script_lacks_is_compared_among_the_others(folder):
    """The first of them has the canonical copy."""
    extra = "# --- shared: three ---\nx = 3\n# --- end shared ---\n"
    assert check(folder(other=OTHER + extra, third=OTHER + extra)) == []
    root = folder(other=OTHER + extra, third=OTHER + extra.replace("3", "4"))
    (fault,) = check(root)
    assert fault.startswith("diffusion_ql.py:10: block 'three' differs from gtp_bc.py's")
    check(root, write=True)
    assert (root / "diffusion_ql.py").read_text() == OTHER + extra


FAULTS = {
    "no end": ("return 1\n# --- end shared ---", "return 1", "begins inside|has no end"),
    "no end at the end": ("2\n    # --- end shared ---", "2", "'two' has no end"),
    "no begin": ("# --- shared: one ---\n", "", "an end without a begin"),
    "nested": ("return 1\n", "return 1\n# --- shared: in ---\n# --- end shared ---\n", "inside"),
    "twice": ("shared: two", "shared: one", "'one' is there twice"),
    "no name": ("shared: two", "shared:", "no marker of a shared block"),
    "mistyped begin": ("--- shared: two ---", "-- shared: two --", "no marker of a shared block"),
    "mistyped end": ("2\n    # --- end shared ---", "2\n    # --- end shared", "no marker"),
}


@pytest.mark.parametrize("where", ["canonical", "other"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_markers_are_reported_and_nothing_is_written(folder, fault, where):
    """With a line number in the file at fault, whatever else differs."""
    old, new, expected = FAULTS[fault]
    texts = {"canonical": CANONICAL, "other": OTHER.replace("= 2", "= 3")}
    assert old in texts[where].replace("= 3", "= 2")
    texts[where] = texts[where].replace("= 3", "= 2").replace(old, new)
    root = folder(**texts)
    before = [(root / name).read_bytes() for name in ("gtp_offline.py", "gtp_bc.py")]
    name = {"canonical": "gtp_offline.py", "other": "gtp_bc.py"}[where]
    for write in (False, True):
        faults = check(root, write)
        assert faults and all(re.match(rf"{name}:\d+: ", f) for f in faults)
        assert any(re.search(expected, f) for f in faults), faults
    assert before == [(root / name).read_bytes() for name in ("gtp_offline.py", "gtp_bc.py")]


def test_the_exit_code_is_one_where_anything_differs(folder, capsys):
    root = folder(other=OTHER.replace("return 1", "return 2"))
    assert shared_blocks.main([]) == 1 and "'one' differs" in capsys.readouterr().out
    assert shared_blocks.main(["--write"]) == 0 and shared_blocks.main([]) == 0
    assert (root / "gtp_bc.py").read_text() == OTHER
    assert shared_blocks.main(["--wirte"]) == 2 and "--wirte" in capsys.readouterr().err
