"""d4rl_tasks.dataset_file against a local server: downloads, resumption, mirror, checksums."""

import contextlib
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import d4rl_tasks
from d4rl_tasks import dataset_file

ROOT = Path(__file__).resolve().parent.parent
TASK, NAME = "hopper-medium-v2", "hopper_medium-v2.hdf5"
CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` (path: bytes) with ranges; `requests` lists (path, range header)."""

    def __init__(self, files, ranges=True, cut_after=None, slow=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges, self.cut_after, self.slow = files, ranges, cut_after, slow
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request, client_address):  # clients may hang up
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        content, start = server.files.get(self.path.lstrip("/")), 0
        if content is None:
            self.send_error(404)
            return
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        time.sleep(server.slow)
        self.wfile.write(content[start : server.cut_after])

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """serve(first, mirror) starts servers (None: a closed port) and points dataset_file to them."""
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    remote = d4rl_tasks.DATASETS[TASK][0]
    monkeypatch.setitem(d4rl_tasks.DATASETS, TASK, (remote, len(CONTENT), sha256))
    with contextlib.ExitStack() as stack:

        def start(*servers):
            urls = []
            for server in servers:
                if server is None:
                    with socket.socket() as closed:
                        closed.bind(("127.0.0.1", 0))
                        urls.append(f"http://127.0.0.1:{closed.getsockname()[1]}/")
                    continue
                stack.callback(server.server_close)
                stack.callback(server.shutdown)
                threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
                urls.append(server.url)
            monkeypatch.setattr(d4rl_tasks, "DATASET_URLS", urls)

        yield start


def original(**options):
    return Server({f"gym_mujoco_v2/{NAME}": CONTENT}, **options)


def mirror(content=CONTENT, **options):
    return Server({NAME: content}, **options)


def names(folder):
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_download_then_use_without_network(serve, tmp_path):
    server = original()
    serve(server, None)
    assert dataset_file(TASK) == tmp_path / NAME
    assert (tmp_path / NAME).read_bytes() == CONTENT and names(tmp_path) == {NAME}
    assert server.requests == [(f"/gym_mujoco_v2/{NAME}", None)]
    serve(None, None)
    assert dataset_file(TASK) == tmp_path / NAME


def test_default_folder_is_d4rls(monkeypatch, tmp_path):
    monkeypatch.delenv("D4RL_DATASET_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = dataset_file("multigoal-v0")
    assert path.parent == tmp_path / ".d4rl" / "datasets" and path.exists()


def test_partial_download_is_continued(serve, tmp_path):
    server = original()
    serve(server, None)
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1_000_000])
    dataset_file(TASK)
    assert server.requests[0][1] == "bytes=1000000-"
    assert (tmp_path / NAME).read_bytes() == CONTENT and names(tmp_path) == {NAME}


def test_server_without_ranges_sends_all_again(serve, tmp_path):
    serve(original(ranges=False), None)
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 1_000_000)
    assert dataset_file(TASK).read_bytes() == CONTENT


def test_complete_partial_file_is_renamed(serve, tmp_path):
    serve(None, None)
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert dataset_file(TASK).read_bytes() == CONTENT


def test_partial_file_too_long_is_dropped(serve, tmp_path):
    serve(original(), mirror())
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    assert dataset_file(TASK).read_bytes() == CONTENT


def test_mirror_follows_a_dead_or_empty_server(serve, tmp_path):
    for first in (None, Server({})):
        second = mirror()
        serve(first, second)
        assert dataset_file(TASK).read_bytes() == CONTENT
        assert second.requests == [(f"/{NAME}", None)]
        (tmp_path / NAME).unlink()


def test_mirror_continues_what_the_first_broke_off(serve, tmp_path):
    second = mirror()
    serve(original(cut_after=2_000_000), second)
    assert dataset_file(TASK).read_bytes() == CONTENT
    assert second.requests[0][1] == "bytes=2000000-"


def test_broken_off_download_is_kept_for_the_next_run(serve, tmp_path):
    serve(original(cut_after=2_000_000), None)
    with pytest.raises(ValueError, match=r"connection lost after 2000000 of 3000000 bytes"):
        dataset_file(TASK)
    assert (tmp_path / f"{NAME}.part").stat().st_size == 2_000_000
    assert not (tmp_path / NAME).exists()


def test_a_page_of_another_size_is_not_taken_for_the_file(serve, tmp_path):
    serve(Server({f"gym_mujoco_v2/{NAME}": b"please log in"}), mirror())
    assert dataset_file(TASK).read_bytes() == CONTENT


def test_wrong_checksum_is_refused_and_kept_aside(serve, tmp_path):
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    serve(None, mirror(wrong))
    with pytest.raises(ValueError, match=rf"SHA-256 .* {NAME}\.bad.*--dataset-path"):
        dataset_file(TASK)
    assert (tmp_path / f"{NAME}.bad").read_bytes() == wrong and names(tmp_path) == {f"{NAME}.bad"}


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], bytes(len(CONTENT))])
def test_wrong_file_that_is_already_there(serve, tmp_path, content):
    serve(original(), None)
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{NAME} is not D4RL's"):
        dataset_file(TASK)
    assert (tmp_path / f"{NAME}.bad").read_bytes() == content
    assert dataset_file(TASK).read_bytes() == CONTENT  # run again


def test_no_network_names_the_urls_and_the_way_out(serve, tmp_path):
    serve(None, None)
    begin = time.monotonic()
    with pytest.raises(ValueError) as error:
        dataset_file(TASK)
    assert time.monotonic() - begin < 5
    message = str(error.value)
    first, second = d4rl_tasks.DATASET_URLS
    for part in (f"{first}gym_mujoco_v2/{NAME}", f"{second}{NAME}", "--dataset-path", TASK):
        assert part in message
    assert "\n" not in message and names(tmp_path) == set()


def test_a_server_that_never_answers_is_given_up(serve, monkeypatch):
    """As where packets vanish, name look-up included; the true limit is 10 s for each server."""
    monkeypatch.setattr(d4rl_tasks, "CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: time.sleep(30))
    serve(None, None)
    begin = time.monotonic()
    with pytest.raises(ValueError, match=r"no answer within 0.2 s"):
        dataset_file(TASK)
    assert time.monotonic() - begin < 5


def test_the_real_limit_is_below_half_a_minute():
    assert len(d4rl_tasks.DATASET_URLS) * 1.1 * d4rl_tasks.CONNECT_TIMEOUT < 30


def test_two_processes_at_once_download_once(serve, tmp_path):
    server = original(slow=1.0)
    serve(server, None)
    code = f"""
import d4rl_tasks
d4rl_tasks.DATASET_URLS = {d4rl_tasks.DATASET_URLS!r}
d4rl_tasks.DATASETS[{TASK!r}] = {d4rl_tasks.DATASETS[TASK]!r}
print(d4rl_tasks.dataset_file({TASK!r}))
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen([sys.executable, "-c", code], env=env, **pipes) for _ in range(2)]
    outputs = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert {out.strip() for out, _ in outputs} == {str(tmp_path / NAME)}
    assert (tmp_path / NAME).read_bytes() == CONTENT and names(tmp_path) == {NAME}
    assert len(server.requests) == 1
    assert sum("waiting for another process" in err for _, err in outputs) == 1


def test_two_threads_at_once_download_once(serve, tmp_path):
    server = original(slow=0.3)
    serve(server, None)
    found = []
    threads = [threading.Thread(target=lambda: found.append(dataset_file(TASK))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / NAME] * 3 and len(server.requests) == 1


def hdf5(path, obs_dim, action_dim):
    with h5py.File(path, "w") as file:
        file["observations"] = np.zeros((5, obs_dim), np.float32)
        file["actions"] = np.zeros((5, action_dim), np.float32)
    return path.read_bytes()


def test_antmaze_v2_is_checked_by_shape_with_a_warning(serve, tmp_path):
    name = "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5"
    right = hdf5(tmp_path / "right", 29, 8)
    serve(Server({f"ant_maze_v2/{name}": right}), None)
    with pytest.warns(UserWarning, match="antmaze-umaze-v2"):
        assert dataset_file("antmaze-umaze-v2").read_bytes() == right
    for wrong in (hdf5(tmp_path / "wrong", 27, 8), right[: len(right) // 2], b"<html>"):
        (tmp_path / name).write_bytes(wrong)
        with pytest.raises(ValueError, match=r"_fixed\.hdf5\.bad"), pytest.warns(UserWarning):
            dataset_file("antmaze-umaze-v2")
        assert not (tmp_path / name).exists()


def test_every_d4rl_task_has_a_file_of_its_own():
    tasks = set(d4rl_tasks.TASK_DIMS) - set(d4rl_tasks.MULTIGOAL_REWARDS)
    assert set(d4rl_tasks.DATASETS) == tasks
    paths = {path for path, _, _ in d4rl_tasks.DATASETS.values()}
    assert len({Path(path).name for path in paths}) == len(tasks) == 21
    assert d4rl_tasks.DATASETS["walker2d-medium-replay-v2"] == (
        "gym_mujoco_v2/walker2d_medium_replay-v2.hdf5",
        86323963,
        "e75de96a4f77acf7d4e0d6fdf0d7ccb177c26c44bb4388e4fd99f543ccfa18db",
    )
    for env_id, file in (
        ("antmaze-umaze-v0", "u-maze_noisy_multistart_False_multigoal_False_sparse.hdf5"),
        ("antmaze-medium-diverse-v0", "big-maze_noisy_multistart_True_multigoal_True_sparse.hdf5"),
        ("antmaze-large-play-v0", "hardest-maze_noisy_multistart_True_multigoal_False_sparse.hdf5"),
    ):
        assert d4rl_tasks.DATASETS[env_id][0] == f"ant_maze_new/Ant_maze_{file}"
    for path, size, sha256 in d4rl_tasks.DATASETS.values():
        assert (size is None) == (sha256 is None) == path.startswith("ant_maze_v2/")
        assert sha256 is None or len(sha256) == 64


def test_multigoal_data_are_the_same_bytes_every_time(tmp_path, monkeypatch):
    contents = []
    for folder in ("a", "b"):
        monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / folder))
        path = dataset_file("multigoal-v0")
        contents.append(path.read_bytes())
        assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert contents[0] == contents[1]
    before = path.stat().st_mtime_ns
    assert dataset_file("multigoal-v0").stat().st_mtime_ns == before
    monkeypatch.setattr(d4rl_tasks, "MULTIGOAL_DATA", "r999")
    assert dataset_file("multigoal-v0") != path


def test_no_dataset_for_other_gymnasium_tasks():
    with pytest.raises(ValueError, match=r"'Pendulum-v1'.*--dataset-path"):
        dataset_file("Pendulum-v1")


def test_unusable_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "file"))
    for env_id in ("multigoal-v0", TASK):
        with pytest.raises(ValueError, match=r"D4RL_DATASET_DIR.*--dataset-path"):
            dataset_file(env_id)
