"""offline_tasks.dataset_file against a local server: downloads, resumption, mirror, checksums."""

import contextlib
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import offline_tasks
from offline_tasks import d4rl_files, dataset_file, files, multigoal, toys

ROOT = Path(__file__).resolve().parent.parent
TASK, NAME = "hopper-medium-v2", "hopper_medium-v2.hdf5"
REAL_URLS = list(d4rl_files.DATASET_URLS)
CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` (path: bytes) with ranges; `requests` lists (path, range header). With
    `held` it sends nothing before `release()`; `asked` is set at the first request."""

    def __init__(self, files, ranges=True, cut_after=None, held=False):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges, self.cut_after = files, ranges, cut_after
        self.requests, self.asked, self.free = [], threading.Event(), threading.Event()
        self.release = self.free.set
        if not held:
            self.release()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request, client_address):  # clients may hang up
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        server.asked.set()
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
        server.free.wait(60)
        self.wfile.write(content[start : server.cut_after])

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """serve(mirror, original) starts servers (None: a closed port) and points dataset_file to
    them, in this order."""
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    remote = offline_tasks.DATASETS[TASK][0]
    monkeypatch.setitem(offline_tasks.DATASETS, TASK, (remote, len(CONTENT), sha256))
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
            urls = [url + name for url, name in zip(urls, ("{file}", "{path}"), strict=True)]
            monkeypatch.setattr(d4rl_files, "DATASET_URLS", urls)

        yield start


def original(**options):
    return Server({f"gym_mujoco_v2/{NAME}": CONTENT}, **options)


def mirror(content=CONTENT, **options):
    return Server({NAME: content}, **options)


def names(folder):
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_download_then_use_without_network(serve, tmp_path):
    first, second = mirror(), original()
    serve(first, second)
    assert dataset_file(TASK) == tmp_path / NAME
    assert (tmp_path / NAME).read_bytes() == CONTENT and names(tmp_path) == {NAME}
    assert first.requests == [(f"/{NAME}", None)] and second.requests == []
    serve(None, None)
    assert dataset_file(TASK) == tmp_path / NAME


def test_default_folder_is_d4rls(monkeypatch, tmp_path):
    monkeypatch.delenv("D4RL_DATASET_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = dataset_file("multigoal-v0")
    assert path.parent == tmp_path / ".d4rl" / "datasets" and path.exists()


def test_partial_download_is_continued(serve, tmp_path):
    server = original()
    serve(None, server)
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1_000_000])
    dataset_file(TASK)
    assert server.requests[0][1] == "bytes=1000000-"
    assert (tmp_path / NAME).read_bytes() == CONTENT and names(tmp_path) == {NAME}


def test_server_without_ranges_sends_all_again(serve, tmp_path):
    serve(None, original(ranges=False))
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 1_000_000)
    assert dataset_file(TASK).read_bytes() == CONTENT


def test_complete_partial_file_is_renamed(serve, tmp_path):
    serve(None, None)
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert dataset_file(TASK).read_bytes() == CONTENT


def test_partial_file_too_long_is_dropped(serve, tmp_path):
    serve(mirror(), original())
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    assert dataset_file(TASK).read_bytes() == CONTENT


def test_the_original_follows_a_dead_or_empty_mirror(serve, tmp_path):
    for first in (None, Server({})):
        second = original()
        serve(first, second)
        assert dataset_file(TASK).read_bytes() == CONTENT
        assert second.requests == [(f"/gym_mujoco_v2/{NAME}", None)]
        (tmp_path / NAME).unlink()


def test_the_original_continues_what_the_mirror_broke_off(serve, tmp_path):
    second = original()
    serve(mirror(cut_after=2_000_000), second)
    assert dataset_file(TASK).read_bytes() == CONTENT
    assert second.requests[0][1] == "bytes=2000000-"


def test_broken_off_download_is_kept_for_the_next_run(serve, tmp_path):
    serve(None, original(cut_after=2_000_000))
    with pytest.raises(ValueError, match=r"connection lost after 2000000 of 3000000 bytes"):
        dataset_file(TASK)
    assert (tmp_path / f"{NAME}.part").stat().st_size == 2_000_000
    assert not (tmp_path / NAME).exists()


def test_a_page_of_another_size_is_not_taken_for_the_file(serve, tmp_path):
    serve(Server({NAME: b"please log in"}), original())
    assert dataset_file(TASK).read_bytes() == CONTENT


def test_wrong_checksum_is_refused_and_kept_aside(serve, tmp_path):
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    serve(mirror(wrong), None)
    with pytest.raises(ValueError, match=rf"SHA-256 .* {NAME}\.bad.*--dataset-path"):
        dataset_file(TASK)
    assert (tmp_path / f"{NAME}.bad").read_bytes() == wrong and names(tmp_path) == {f"{NAME}.bad"}


def test_the_original_follows_a_mirror_with_another_file(serve, tmp_path):
    wrong = bytes(len(CONTENT))
    serve(mirror(wrong), original())
    assert dataset_file(TASK).read_bytes() == CONTENT
    assert (tmp_path / f"{NAME}.bad").read_bytes() == wrong


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], bytes(len(CONTENT))])
def test_wrong_file_that_is_already_there(serve, tmp_path, content):
    serve(None, original())
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{NAME} is not D4RL's"):
        dataset_file(TASK)
    assert (tmp_path / f"{NAME}.bad").read_bytes() == content
    assert dataset_file(TASK).read_bytes() == CONTENT  # run again


def test_no_network_names_the_urls_and_the_way_out(serve, tmp_path):
    serve(None, None)
    with pytest.raises(ValueError) as error:
        dataset_file(TASK)
    message = str(error.value)
    first, second = (url.partition("{")[0] for url in d4rl_files.DATASET_URLS)
    for part in (f"{first}{NAME}", f"{second}gym_mujoco_v2/{NAME}", "--dataset-path", TASK):
        assert part in message
    assert "\n" not in message and names(tmp_path) == set()


def test_a_server_that_never_answers_is_given_up(serve, monkeypatch):
    """As where packets vanish, name look-up included; the true limit is 10 s for each server."""
    serve(None, None)
    over = threading.Event()
    monkeypatch.setattr(d4rl_files, "CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: over.wait(60))
    try:
        with pytest.raises(ValueError, match=r"no answer within 0.2 s.*no answer within 0.2 s"):
            dataset_file(TASK)
    finally:
        over.set()


def test_the_mirror_comes_first():
    addresses = [url.format(file="x.hdf5", path="gym_mujoco_v2/x.hdf5") for url in REAL_URLS]
    assert addresses == [
        "https://huggingface.co/datasets/imone/D4RL/resolve/main/x.hdf5",
        "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/x.hdf5",
    ]


def test_the_real_limit_is_below_half_a_minute():
    assert len(d4rl_files.DATASET_URLS) * 1.1 * d4rl_files.CONNECT_TIMEOUT < 30


def test_two_processes_at_once_download_once(serve, tmp_path):
    """The server answers only when the second process has said that it waits for the first."""
    server = original(held=True)
    serve(None, server)
    code = f"""
from offline_tasks import d4rl_files, dataset_file
d4rl_files.DATASET_URLS = {d4rl_files.DATASET_URLS!r}
d4rl_files.DATASETS[{TASK!r}] = {d4rl_files.DATASETS[TASK]!r}
print(dataset_file({TASK!r}))
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": env}
    with contextlib.ExitStack() as stack:
        stack.callback(server.release)
        first = stack.enter_context(subprocess.Popen([sys.executable, "-c", code], **pipes))
        assert server.asked.wait(60)
        second = stack.enter_context(subprocess.Popen([sys.executable, "-c", code], **pipes))
        assert second.stderr.readline().startswith("waiting for another process")
        server.release()
        outputs = [run.communicate(timeout=60) for run in (first, second)]
    assert [run.returncode for run in (first, second)] == [0, 0], outputs
    assert {out.strip() for out, _ in outputs} == {str(tmp_path / NAME)}
    assert (tmp_path / NAME).read_bytes() == CONTENT and names(tmp_path) == {NAME}
    assert len(server.requests) == 1
    assert not any("waiting for another process" in err for _, err in outputs)


def test_two_threads_at_once_download_once(serve, tmp_path, monkeypatch):
    server = original(held=True)
    serve(None, server)
    waiting = threading.Semaphore(0)
    monkeypatch.setattr(files, "print", lambda *a, **k: waiting.release(), raising=False)
    found = []
    threads = [threading.Thread(target=lambda: found.append(dataset_file(TASK))) for _ in range(3)]
    for thread in threads:
        thread.start()
    said = [waiting.acquire(timeout=60) for _ in range(2)]
    server.release()
    for thread in threads:
        thread.join()
    assert said == [True, True]
    assert found == [tmp_path / NAME] * 3 and len(server.requests) == 1


def test_every_d4rl_task_has_a_file_of_its_own():
    tasks = set(offline_tasks.TASK_DIMS) - set(toys.TOYS)
    assert set(offline_tasks.DATASETS) == tasks
    paths = {path for path, _, _ in offline_tasks.DATASETS.values()}
    assert len({Path(path).name for path in paths}) == len(tasks) == 21
    assert offline_tasks.DATASETS["walker2d-medium-replay-v2"] == (
        "gym_mujoco_v2/walker2d_medium_replay-v2.hdf5",
        86323963,
        "e75de96a4f77acf7d4e0d6fdf0d7ccb177c26c44bb4388e4fd99f543ccfa18db",
    )
    for env_id, file in (
        ("antmaze-umaze-v0", "u-maze_noisy_multistart_False_multigoal_False_sparse.hdf5"),
        ("antmaze-medium-diverse-v0", "big-maze_noisy_multistart_True_multigoal_True_sparse.hdf5"),
        ("antmaze-large-play-v0", "hardest-maze_noisy_multistart_True_multigoal_False_sparse.hdf5"),
    ):
        assert offline_tasks.DATASETS[env_id][0] == f"ant_maze_new/Ant_maze_{file}"
        v2 = env_id.replace("-v0", "-v2")
        fixed = f"ant_maze_v2/Ant_maze_{file}".replace(".hdf5", "_fixed.hdf5")
        assert offline_tasks.DATASETS[v2][0] == fixed
    assert offline_tasks.DATASETS["antmaze-large-play-v2"][1:] == (
        230880653,
        "6d353df2457829925d7f9d4b0215587469908bd57478ea76f16417cfa944f471",
    )
    hashes = {sha256 for *_, sha256 in offline_tasks.DATASETS.values()}
    assert len(hashes) == len(tasks) and {len(sha256) for sha256 in hashes} == {64}
    published = sorted((sha256, size) for _, size, sha256 in offline_tasks.DATASETS.values())
    lines = "".join(f"{size} {sha256}\n" for sha256, size in published)
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == "5d91716c68a5014a"  # typed in twice


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
    monkeypatch.setattr(multigoal.Multigoal, "data_version", "r999")
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
