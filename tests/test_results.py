"""docs/results.py: whose file a run may replace, and what is refused before anything is written."""

import importlib.util
import json
import re
import sys

import pytest
from conftest import ROOT
from test_ablations_tables import CHEETAH, HOPPER
from test_ablations_tables import results as made

spec = importlib.util.spec_from_file_location("docs_results", ROOT / "docs" / "results.py")
results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results)

OWN = {"variant": "", "command": "python gtp_offline.py --seed 0 --run-dir runs/a"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A docs/results with the page `page` of one section, `hopper`; without drawing."""
    folder = tmp_path / "results"
    section = folder / "page" / "hopper"
    section.mkdir(parents=True)
    for name in (folder, section.parent, section):
        (name / "about.md").write_text(f"# All about {name.name}\n")
    monkeypatch.setattr(results, "RESULTS", folder.resolve())
    monkeypatch.setattr(results, "draw", lambda runs, path, title: path.write_bytes(b""))
    return section


@pytest.fixture
def call(monkeypatch, capsys):
    """call(words) -> exit code and lines on stderr of the command."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["results.py", *map(str, words)])
        code = results.main()
        return code, capsys.readouterr().err.splitlines()

    return run


def save(run_dir, content):
    """results.json of a run -> its directory."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "results.json").write_text(json.dumps(content))
    return run_dir


def run(run_dir, score=90.0, **changes):
    """A run's directory, with the results of `made`."""
    return save(run_dir, made(score, **changes) | OWN)


def everything(folder):
    """{file: bytes} below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def recorded(file):
    """Update and last score in a file."""
    content = json.loads(file.read_text())
    return content["update"], content["evaluations"][-1]["normalized_score"]


# ---- what is taken in ----------------------------------------------------------------------------


def test_a_run_is_copied_without_its_places_and_shown(place, tmp_path, call):
    words = ["--add", run(tmp_path / "a"), run(tmp_path / "b", 80.0, seed=1)]
    assert call(*words, "--to", place / "GTP") == (0, [])
    content = json.loads((place / "GTP-0.json").read_text())
    assert content["command"] == "python gtp_offline.py --seed 0"
    assert content["args"]["run_dir"] == "" and "/" not in content["dataset"]["path"]
    page = (place.parent.parent / "page.md").read_text()
    assert "| GTP | 0, 1 | 90, 80 | 87.5 | 20 | 120.0 | `python gtp_offline.py` |" in page


def test_a_later_state_takes_the_place_of_an_earlier_one(place, tmp_path):
    """Another place, a longer end, an edited command, the same state again: the same run."""
    results.add([run(tmp_path / "a", 90.0, update=20)], place / "GTP")
    file = place / "GTP-0.json"
    file.write_text(
        file.read_text().replace("gtp_offline.py --seed", "gtp_offline.py --flag --seed")
    )
    args = {"run_dir": "elsewhere", "num_updates": 40, "resume": "a", "device": "cuda"}
    later = {"update": 30, "args": args}
    for _ in range(2):
        results.add([run(tmp_path / "b", 95.0, **later)], str(place / "GTP"))
        assert recorded(file) == (30, 95.0)


def test_an_argument_of_a_newer_version_alone_is_no_difference(place, tmp_path):
    results.add([run(tmp_path / "a")], place / "GTP")
    results.add([run(tmp_path / "a", 91.0, args={"not_known_before": 1})], place / "GTP")
    assert recorded(place / "GTP-0.json") == (20, 91.0)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"env_id": CHEETAH}, f"of gtp_offline, {CHEETAH}, data"),
        ({"sha256": "a" * 64}, f"of gtp_offline, {HOPPER}, data aaaaaaaaaaaa"),
        ({"algorithm": "gtp_bc"}, f"of gtp_bc, {HOPPER}, data"),
        ({"args": {"eta": 2.0}}, "of eta 2.0, not 5.0 as what is recorded"),
        ({"seed": 1, "args": {"eta": 2.0}}, "of eta 2.0, not 5.0 as what is recorded"),
        ({"update": 19}, "of update 20, not 19"),
    ],
)
def test_another_run_does_not_replace_a_recorded_one(place, tmp_path, call, changes, said):
    assert call("--add", run(tmp_path / "a"), "--to", place / "GTP") == (0, [])
    before = everything(place.parent.parent)
    words = ["--add", run(tmp_path / "b", 10.0, **changes), "--to", place / "GTP"]
    code, (line,) = call(*words)
    assert code == 2 and line.startswith(f"error: {place}/GTP-{changes.get('seed', 0)}.json ")
    assert said in line and line.endswith("; name another LABEL")
    assert everything(place.parent.parent) == before


def test_the_seeds_of_a_label_are_of_one_task(place, tmp_path, call):
    """With those that are recorded, and with each other."""
    runs = [run(tmp_path / "a"), run(tmp_path / "b", env_id=CHEETAH, seed=1)]
    words = "--add", *runs, "--to", place / "GTP"
    code, (line,) = call(*words)
    assert code == 2 and CHEETAH in line and HOPPER in line and not [*place.glob("*.json")]
    results.add(runs[:1], place / "GTP")
    results.add(runs[1:], place / "GTP-cheetah")  # another label, not a seed of this one
    code, (line,) = call("--add", runs[1], "--to", place / "GTP")
    assert code == 2 and "GTP-0.json is of" in line and not (place / "GTP-1.json").exists()


def test_a_seed_is_given_once(place, tmp_path, call):
    words = ["--add", run(tmp_path / "a"), run(tmp_path / "b"), "--to", place / "GTP"]
    said = f"error: --add {tmp_path / 'b'} has seed 0 again; give it once"
    assert call(*words) == (2, [said])
    assert not [*place.glob("*.json")]


def without(key):
    content = made(90.0) | OWN
    del content[key]
    return content


ROW = {"update": 20, "normalized_score": 90.0}
UNUSABLE = {
    "no task": (made(env_id=None) | OWN, "is of a run without a task"),
    "one evaluation": (made(90.0) | OWN | {"evaluations": [ROW]}, "has 1 of the two evaluations"),
    "no score": (made() | OWN, "an evaluation without update or score"),
    "no number": (made(90.0) | OWN | {"evaluations": [ROW, [1]]}, r"or score, \[1\]; drop the run"),
    "no update": (made(90.0) | OWN | {"evaluations": [ROW, {"normalized_score": 1}]}, "or score"),
    "no table": ([], "is no table of keys and values; take in"),
    "no sha256": (made(90.0) | OWN | {"dataset": {"path": "x"}}, "`dataset` has no sha256"),
} | {key: (without(key), f"`{key}` is None; name a run") for key in results.KINDS}


@pytest.mark.parametrize(("content", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_run_is_one_line_and_nothing_is_copied(place, tmp_path, call, content, said):
    """Also where another run of the call could be taken in."""
    words = ["--add", run(tmp_path / "a", seed=5), save(tmp_path / "b", content)]
    before = everything(place.parent.parent)
    code, (line,) = call(*words, "--to", place / "GTP")
    assert code == 1 and line.startswith(f"error: {tmp_path / 'b' / 'results.json'}")
    assert re.search(said, line)
    assert everything(place.parent.parent) == before


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 10**5, b'{"seed": 1' + b"0" * 5000])
def test_damaged_json_is_named_also_where_it_is_recorded(place, tmp_path, call, content):
    (tmp_path / "a").mkdir()
    for file, words in (
        (tmp_path / "a" / "results.json", ["--add", tmp_path / "a", "--to", place / "GTP"]),
        (place / "GTP-0.json", []),
    ):
        file.write_bytes(content)
        said = f"error: {file} is damaged JSON; take in a run whose results.json is whole"
        assert call(*words) == (1, [said])


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("page/new/GTP", "no page shows it without {here}/page/new/about.md; write that first"),
        ("new/hopper/GTP", "no page shows it without {here}/new/about.md; write that first"),
        ("page/GTP", "is no docs/results/PAGE/FOLDER/LABEL; name a label in a folder of a page"),
        ("page/hopper/deeper/GTP", "is no docs/results/PAGE/FOLDER/LABEL"),
        ("../page/hopper/GTP", "is no docs/results/PAGE/FOLDER/LABEL"),
    ],
)
def test_a_place_that_no_page_shows_is_refused(place, tmp_path, call, to, said):
    here = place.parent.parent
    code, (line,) = call("--add", run(tmp_path / "a"), "--to", here / to)
    assert code == 2 and line.startswith(f"error: --to {here / to}")
    assert said.format(here=here) in line
    assert not [*tmp_path.rglob("GTP*")]


def test_an_empty_about_is_named_before_a_run_is_taken_in(place, tmp_path, call):
    (place / "about.md").write_text("\n")
    said = f"error: {place / 'about.md'} is empty; its first line is to be the title"
    assert call("--add", run(tmp_path / "a"), "--to", place / "GTP") == (1, [said])
    assert call() == (1, [said])
    assert not [*place.glob("*.json")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--add", "{here}/none", "--to", "{there}/GTP"], "there is no {here}/none/results.json"),
        (["--add", "{here}/none"], "--add and --to go together"),
        (["--to", "{there}/GTP"], "--add and --to go together"),
    ],
)
def test_a_wrong_argument_is_exit_code_2(place, tmp_path, call, words, said):
    names = {"here": tmp_path, "there": place}
    code, (line,) = call(*[word.format(**names) for word in words])
    assert code == 2 and said.format(**names) in line


def test_a_page_that_cannot_be_written_is_named(place, call):
    page = place.parent.parent / "page.md"
    page.mkdir()
    code, (line,) = call()
    assert code == 1 and line.startswith(f"error: {page} cannot be read or written (")


# ---- the files here ------------------------------------------------------------------------------


def test_every_recorded_run_can_be_shown_and_taken_in_again():
    """A label's seeds are of one task, and each file is a later state of itself."""
    files = sorted(results.RESULTS.glob("*/*/*.json"))
    assert len(files) >= 80
    subjects = {}
    for file in files:
        content = results.load(file)
        assert file.stem == f"{results.label_of(file)}-{content['seed']}"
        results.check_place(file.with_name(results.label_of(file)))
        results.check_same_run(file, results.without_places(content), content)
        subjects.setdefault(file.with_name(results.label_of(file)), set()).add(
            results.subject(content)
        )
    assert [label for label, found in subjects.items() if len(found) > 1] == []
