"""load_transitions against a hand example, a slow reference loop, and damaged files."""

import re
import warnings

import h5py
import numpy as np
import pytest
from conftest import make_dataset

from gtp_offline import load_transitions

KEYS = ["observations", "actions", "rewards", "next_observations", "terminals"]
SUFFIXES = pytest.mark.parametrize("suffix", [".hdf5", ".npz"])


def write(path, data):
    if path.suffix == ".npz":
        np.savez(path, **data)
    else:
        with h5py.File(path, "w") as file:
            for key, value in data.items():
                file[key] = value
    return path


def reference(data, max_episode_steps=None):
    """D4RL's published qlearning_dataset, as a loop: every row but the last, its successor the next
    row; the last step of an episode that timed out is skipped. Without timeouts an episode is
    taken to time out when its counter is at max_episode_steps - 1. The counter goes back to 0 at a
    terminal state before, and at a skipped row instead of, being incremented."""
    rows, counter = {key: [] for key in KEYS}, 0
    for i in range(len(data["rewards"]) - 1):
        terminal = bool(data["terminals"][i])
        if "timeouts" in data:
            final = bool(data["timeouts"][i])
        else:
            final = max_episode_steps is not None and counter == max_episode_steps - 1
        if final:
            counter = 0
            continue
        if terminal:
            counter = 0
        rows["observations"].append(data["observations"][i])
        rows["next_observations"].append(data["observations"][i + 1])
        rows["actions"].append(data["actions"][i])
        rows["rewards"].append(data["rewards"][i])
        rows["terminals"].append(terminal)
        counter += 1
    return {key: np.array(value, dtype=np.float32) for key, value in rows.items()}


def assert_equal(actual, expected):
    assert sorted(actual) == sorted(KEYS)
    for key in KEYS:
        assert actual[key].dtype == np.float32, key
        np.testing.assert_array_equal(actual[key], expected[key], err_msg=key)


def numbered(terminals, timeouts=None):
    """Row i has observation i, action i / 10 and reward 10 i."""
    i = np.arange(len(terminals), dtype=np.float32)
    data = {"observations": i[:, None], "actions": i[:, None] / 10, "rewards": 10 * i}
    data["terminals"] = np.array(terminals, dtype=bool)
    return data if timeouts is None else data | {"timeouts": np.array(timeouts, dtype=bool)}


@SUFFIXES
def test_rows_with_timeouts_are_dropped_and_the_successor_is_the_next_row(suffix, tmp_path):
    """Row 1 is terminal: kept, with row 2 as its successor. Row 3 timed out: dropped. Row 5 is the
    last: it has no successor."""
    data = numbered([0, 1, 0, 0, 0, 0], timeouts=[0, 0, 0, 1, 0, 0])
    loaded = load_transitions(write(tmp_path / f"data{suffix}", data))
    assert loaded["observations"].tolist() == [[0], [1], [2], [4]]
    assert loaded["next_observations"].tolist() == [[1], [2], [3], [5]]
    assert loaded["rewards"].tolist() == [0, 10, 20, 40]
    assert loaded["terminals"].tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(loaded["actions"], [[0], [0.1], [0.2], [0.4]], rtol=1e-6)


def test_a_row_that_is_terminal_and_timed_out_is_dropped_by_d4rls_rule_alone(tmp_path):
    """So is a terminal last row: neither needs a next observation."""
    path = write(tmp_path / "data.npz", numbered([0, 1, 0, 1], timeouts=[0, 1, 0, 0]))
    loaded = load_transitions(path, d4rl_semantics=True)
    assert loaded["observations"].tolist() == [[0], [2]] and not loaded["terminals"].any()
    loaded = load_transitions(path)
    assert loaded["observations"].tolist() == [[0], [1], [2], [3]]
    assert loaded["terminals"].tolist() == [0, 1, 0, 1]
    assert loaded["rewards"].tolist() == [0, 10, 20, 30]
    assert loaded["next_observations"][[0, 2]].tolist() == [[1], [3]]


def test_without_timeouts_episodes_are_cut_at_the_maximal_length(tmp_path):
    """Three steps at most, nothing terminal: rows 2, 5 and 8 are dropped."""
    path = write(tmp_path / "data.npz", numbered([0] * 10))
    assert load_transitions(path, 3)["observations"][:, 0].tolist() == [0, 1, 3, 4, 6, 7]


def test_the_first_step_after_a_terminal_state_counts_as_one(tmp_path):
    """Three steps at most, row 1 terminal: its own increment makes row 2 number 1, so row 3 is
    number 2 and dropped, and so is row 6. That is D4RL's; the third steps are rows 4 and 7."""
    path = write(tmp_path / "data.npz", numbered([0, 1, 0, 0, 0, 0, 0, 0]))
    loaded = load_transitions(path, 3, d4rl_semantics=True)
    assert loaded["observations"][:, 0].tolist() == [0, 1, 2, 4, 5]
    assert load_transitions(path, 3)["observations"][:, 0].tolist() == [0, 1, 2, 3, 5, 6]


def test_without_timeouts_and_without_a_maximal_length_nothing_is_cut(tmp_path):
    path = write(tmp_path / "data.npz", numbered([0] * 10))
    assert load_transitions(path)["observations"][:, 0].tolist() == list(range(9))


def test_timeouts_take_precedence_over_the_maximal_length(tmp_path):
    path = write(tmp_path / "data.npz", numbered([0] * 6, timeouts=[0, 0, 0, 0, 1, 0]))
    assert load_transitions(path, 2)["observations"][:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(40))
def test_random_files_load_as_in_the_reference_loop(seed, tmp_path):
    """Lengths 2..80, terminal rates 0..1/2, step limits 1..12 or none, with or without timeouts."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(2, 81))
    data = make_dataset(rows, obs_dim=2, action_dim=1, seed=seed)
    data["terminals"] = rng.random(rows) < rng.choice([0.0, 0.1, 0.5])
    limit = [None, *range(1, 13)][rng.integers(13)]
    if seed % 2:
        del data["timeouts"]
    else:
        data["timeouts"] = rng.random(rows) < 0.2
    path, expected = write(tmp_path / "data.npz", data), reference(data, limit)
    if len(expected["rewards"]):
        assert_equal(load_transitions(path, limit, d4rl_semantics=True), expected)
    else:  # every row is cut
        with pytest.raises(ValueError, match=re.escape(str(path))):
            load_transitions(path, limit, d4rl_semantics=True)


def test_a_long_file_is_cut_as_in_the_reference_loop(tmp_path):
    """20,000 rows of episodes that end by themselves or after 100 steps."""
    data = make_dataset(20_000, obs_dim=2, action_dim=1)
    data["terminals"] = np.random.default_rng(0).random(20_000) < 0.01
    del data["timeouts"]
    expected = reference(data, 100)
    loaded = load_transitions(write(tmp_path / "data.npz", data), 100, d4rl_semantics=True)
    assert_equal(loaded, expected)


@SUFFIXES
def test_other_types_and_shapes_of_numbers_load_alike(suffix, tmp_path):
    """float64, rewards and terminals of shape (N, 1), terminals as integers: float32 all the same;
    the path may be a string."""
    data = make_dataset()
    expected = reference(data)
    data = {key: np.asarray(value, dtype=np.float64) for key, value in data.items()}
    data["rewards"] = data["rewards"][:, None]
    data["terminals"] = data["terminals"].astype(np.int64)[:, None]
    data["timeouts"] = data["timeouts"].astype(np.uint8)[:, None]
    assert_equal(load_transitions(str(write(tmp_path / f"data{suffix}", data))), expected)


@SUFFIXES
def test_other_keys_are_ignored(suffix, tmp_path):
    """D4RL's files have groups infos/ and metadata/ besides, with arrays of any kind and length,
    and D4RL's rule does not look at next_observations."""
    data = make_dataset()
    expected = reference(data)
    extra = {
        "infos/qpos": np.full((3, 2), np.nan), "metadata/algorithm": np.bytes_(b"SAC"),
        "next_observations": np.zeros((5, 1)), "infos/goal": np.array([b"a", b"b"]),
    }  # fmt: skip
    if suffix == ".npz":
        extra = {key.replace("/", "_"): value for key, value in extra.items()}
    path = write(tmp_path / f"data{suffix}", data | extra)
    assert_equal(load_transitions(path, d4rl_semantics=True), expected)


@SUFFIXES
def test_the_file_is_recognised_by_its_content(suffix, tmp_path):
    """A name says nothing: HDF5 and NPZ content under another suffix load."""
    data = make_dataset()
    path = write(tmp_path / f"data{suffix}", data).rename(tmp_path / "download.part")
    assert_equal(load_transitions(path), reference(data))


# ---- bad files -------------------------------------------------------------------------------


def refused(path, *patterns):
    """The message is one line that names the file and what the patterns say, in any case."""
    with pytest.raises(ValueError) as caught:
        load_transitions(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600, message
    for pattern in (re.escape(str(path)), *patterns):
        assert re.search(pattern, message, re.IGNORECASE), (pattern, message)


def test_an_absent_file_is_refused(tmp_path):
    refused(tmp_path / "absent.hdf5", "no such file|not a file|absent|not exist", "HDF5 or NPZ")


def test_a_folder_is_refused(tmp_path):
    refused(tmp_path, "directory|folder|not a file", "HDF5 or NPZ")


@pytest.mark.parametrize("content", [b"", b"observations,actions\n1,2\n", b"\x89HDF\r\n\x1a\n" * 9])
def test_an_empty_or_foreign_file_is_refused(content, tmp_path):
    path = tmp_path / "data.hdf5"
    path.write_bytes(content)
    refused(path)


@SUFFIXES
@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_truncated_file_is_refused(suffix, kept, tmp_path):
    path = write(tmp_path / f"data{suffix}", make_dataset())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refused(path)


def test_a_file_with_a_flipped_byte_is_refused(tmp_path):
    """NPZ has checksums: a byte in the middle of an array is noticed."""
    path = write(tmp_path / "data.npz", make_dataset())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    refused(path)


def test_a_file_that_runs_code_when_unpickled_is_refused(tmp_path):
    data = make_dataset() | {"rewards": np.array([{}] * 240, dtype=object)}
    refused(write(tmp_path / "data.npz", data))


@SUFFIXES
@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminals"])
def test_a_missing_key_is_named(suffix, key, tmp_path):
    data = make_dataset()
    del data[key]
    refused(write(tmp_path / f"data{suffix}", data), key)


@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminals", "timeouts"])
def test_lengths_that_differ_are_named(key, tmp_path):
    data = make_dataset()
    data[key] = data[key][:-7]
    refused(write(tmp_path / "data.npz", data), key, "233", "240")


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("observations", (240,)),
        ("observations", (240, 2, 2)),
        ("observations", (240, 0)),
        ("actions", (240,)),
        ("rewards", (240, 2)),
        ("terminals", (240, 3)),
    ],
)
def test_a_wrong_shape_is_named(key, shape, tmp_path):
    data = make_dataset()
    data[key] = np.zeros(shape, dtype=np.float32)
    refused(write(tmp_path / "data.npz", data), key, re.escape(str(shape)))


def test_a_single_number_where_an_array_belongs_is_refused(tmp_path):
    refused(write(tmp_path / "data.npz", make_dataset() | {"rewards": np.float32(0)}), "rewards")


@SUFFIXES
@pytest.mark.parametrize("key", ["observations", "rewards", "terminals"])
def test_text_where_numbers_belong_is_named(suffix, key, tmp_path):
    data = make_dataset()
    data[key] = np.array([b"fast"] * 240)
    refused(write(tmp_path / f"data{suffix}", data), key)


def test_a_group_where_an_array_belongs_is_refused(tmp_path):
    data = make_dataset()
    data["rewards/sparse"] = data.pop("rewards")
    refused(write(tmp_path / "data.hdf5", data))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", ["observations", "actions", "rewards"])
def test_nan_and_infinity_are_named(key, value, tmp_path):
    data = make_dataset()
    data[key][17] = value
    refused(write(tmp_path / "data.npz", data), key, "nan")


@SUFFIXES
@pytest.mark.parametrize("key", ["observations", "actions", "rewards"])
def test_numbers_that_float32_cannot_hold_are_refused(suffix, key, tmp_path):
    """1e39 becomes infinite in float32, beside infinity too."""
    data = make_dataset()
    data[key] = data[key].astype(np.float64)
    data[key][3] = -1e39
    data[key][4] = np.inf
    said = r"reaches 1e\+39, beyond float32's 3.4e\+38; rescale it$"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(write(tmp_path / f"data{suffix}", data), f"{key} {said}")
        data[key][3] = 3e38
        refused(write(tmp_path / f"data{suffix}", data), f"{key} has NaN or infinity in 1 rows")


@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminals", "timeouts"])
def test_an_empty_dataset_of_hdf5_has_no_rows(key, tmp_path):
    path = write(tmp_path / "data.hdf5", make_dataset() | {key: h5py.Empty("f")})
    refused(path, f"{key} is empty: it has no rows$")


LINKS = {
    "soft": (h5py.SoftLink("/absent"), "/absent of this file"),
    "around": (None, "/{key} of this file"),
    "external": (h5py.ExternalLink("absent.h5", "/a"), "/a of absent.h5"),
    "foreign": (h5py.ExternalLink("text.h5", "/a"), "/a of text.h5"),
}


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("key", ["observations", "rewards", "timeouts", "next_observations"])
def test_a_link_to_nothing_is_named(kind, key, tmp_path):
    (tmp_path / "text.h5").write_text("text")
    link, target = LINKS[kind]
    if kind == "around":
        link = h5py.SoftLink(f"/{key}")
    path = write(tmp_path / "data.hdf5", make_dataset() | {key: link})
    said = f"{key} is a link to {target.format(key=key)}, which cannot be had; write the array"
    refused(path, f"HDF5 or NPZ: {said} in its place$")


def test_a_link_to_an_array_is_followed(tmp_path):
    data = make_dataset()
    plain = load_transitions(write(tmp_path / "data.npz", data))
    data |= {"r": data["rewards"], "rewards": h5py.SoftLink("/r")}
    assert_equal(load_transitions(write(tmp_path / "data.hdf5", data)), plain)


def test_python_objects_are_named(tmp_path):
    data = make_dataset() | {"rewards": np.array([1.0] * 240, dtype=object)}
    refused(write(tmp_path / "data.npz", data), "rewards holds Python objects; save it as float32$")


@pytest.mark.parametrize("key", ["observations", "actions"])
def test_a_single_column_without_its_axis_is_to_be_reshaped(key, tmp_path):
    data = make_dataset()
    data[key] = data[key][:, 0]
    said = r"a column per number; reshape it from \(240,\) to \(240, 1\)$"
    refused(write(tmp_path / "data.npz", data), f"{key} needs a row per step and {said}")


@pytest.mark.parametrize(
    ("timeouts", "which"), [([1, 1, 1, 1], "every row"), ([1, 1, 1, 0], "3 of 4 rows")]
)
def test_rows_that_all_timed_out_are_said(timeouts, which, tmp_path):
    path = write(tmp_path / "data.npz", numbered([0] * 4, timeouts))
    refused(
        path, f"has no transition as {which} timed out .*; mark only the last row of an episode"
    )


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_are_refused(rows, tmp_path):
    data = {key: value[:rows] for key, value in make_dataset().items()}
    refused(write(tmp_path / "data.npz", data))


def test_two_rows_are_one_transition(tmp_path):
    data = {key: value[:2] for key, value in make_dataset().items()}
    assert len(load_transitions(write(tmp_path / "data.npz", data))["rewards"]) == 1


def test_actions_beyond_one_by_a_rounding_error_are_clipped_with_a_line(tmp_path, capsys):
    data = make_dataset()
    data["actions"][3] = 1.0009
    data["actions"][4] = -1.0009
    path = write(tmp_path / "data.npz", data)
    loaded = load_transitions(path)
    line = f"dataset {path}: actions up to 1.0009 clipped to [-1, 1]\n"
    assert line in capsys.readouterr().err
    assert np.abs(loaded["actions"]).max() == 1 and (loaded["actions"][3] == 1).all()


@pytest.mark.parametrize("value", [1.5, -40.0, 1.0011])
def test_actions_beyond_one_are_refused_with_the_range_and_the_remedy(value, tmp_path):
    data = make_dataset()
    data["actions"][3, 0] = value
    refused(write(tmp_path / "data.npz", data), "actions", f"{abs(value):g}"[:4], "rescale", r"1\]")
