"""Tests on a local Ray cluster of two nodes. They kill a node or the driver."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cs285.experiments.job import iterations_done
from cs285.scripts import run_hw4_mb
from tests.cli.processes import ROOT, children_of, command_of, start, wait_until
from tests.cli.test_reproduce import write_list
from tests.conftest import TINY, arguments, read_curve

cluster_utils = pytest.importorskip("ray.cluster_utils")
SECONDS = 300.0
FLAGS = {**TINY, "n_iter": 12, "batch_size": 200, "video_log_freq": -1}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a head node without cores and two nodes with one core each."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def kill_node_of(cluster: Any, folders: list[Path]) -> None:
    """Kill a node that executes one of these runs."""
    flags = [json.loads((folder / "config.json").read_text())["flags"] for folder in folders]
    names = [f"--exp_name={one['exp_name']}" for one in flags]
    for node in cluster.worker_nodes:
        raylet = node.all_processes["raylet"][0].process.pid
        words = [word for child in children_of(raylet) for word in command_of(child).split("\0")]
        if any(name in words for name in names):
            cluster.remove_node(node, allow_graceful=False)
            return
    raise AssertionError(f"no node runs any of {names}")


def by_hand(data: Path, **flags: Any) -> list[dict[str, str]]:
    assert run_hw4_mb.main(arguments(**{**FLAGS, **flags, "data_dir": data})) == 0
    (folder,) = data.glob("hw4_*")
    return read_curve(folder)


def folders(data: Path) -> list[Path]:
    """Return the log folders below `data` that contain a checkpoint."""
    # rglob would fail if a folder is renamed while it lists the folders.
    files = [*data.glob("hw4_*/checkpoint.pt"), *data.glob("sweep_*/hw4_*/checkpoint.pt")]
    return sorted(file.parent for file in files)


def under_way(data: Path) -> list[Path]:
    """Return the log folders of runs with a checkpoint that have at least 5 iterations left."""
    # One such run is enough: on a busy machine it may end before the other run begins.
    return [folder for folder in folders(data) if 0 < iterations_done(folder) < 8]


def run_and_kill_a_node(cluster: Any, tmp_path: Path, script: str, *words: str) -> list[Path]:
    """Execute two runs on the cluster, kill a node meanwhile, and return their log folders."""
    data = tmp_path / "data"
    process = start(script, *words, "--data_dir", str(data), "--address", cluster.address)
    wait_until(lambda: bool(under_way(data)), SECONDS)
    kill_node_of(cluster, under_way(data))
    out, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, out + error
    found = folders(data)
    assert len(found) == 2
    return found


@pytest.mark.long
def test_sweep_continues_after_a_node_is_lost(cluster: Any, tmp_path: Path) -> None:
    flags = arguments(**{**FLAGS, "num_workers": None, "size": "16,24", "seed": "1"})
    words = ["--script", "mb", *flags]
    for folder in run_and_kill_a_node(cluster, tmp_path, "scripts/sweep.py", *words):
        size = json.loads((folder / "config.json").read_text())["flags"]["size"]
        assert read_curve(folder) == by_hand(tmp_path / str(size), size=size)


def test_killed_driver_ends_its_runs_and_they_can_be_resumed(cluster: Any, tmp_path: Path) -> None:
    """A new driver on the same cluster resumes the runs."""
    flags = arguments(**{**FLAGS, "num_workers": None, "size": "16,24", "n_iter": 8})
    address = ["--address", cluster.address]
    words = ["--script", "mb", *flags, "--data_dir", str(tmp_path), "--jobs", "1", *address]
    process = start("scripts/sweep.py", *words)
    wait_until(lambda: bool(under_way(tmp_path)), SECONDS)
    process.kill()
    process.communicate(timeout=SECONDS)
    (sweep,) = tmp_path.glob("sweep_*")
    process = start("scripts/sweep.py", "--resume", str(sweep), *address)
    out, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, out + error
    first, second = folders(tmp_path)
    assert "resumed" in json.loads((first / "config.json").read_text())
    assert read_curve(first) == by_hand(tmp_path / "by_hand", size=16, n_iter=8)
    assert iterations_done(second) == 8


def test_share_larger_than_a_node_is_rejected(cluster: Any, tmp_path: Path) -> None:
    words = ["--script", "mb", *arguments(**{**FLAGS, "num_workers": None, "size": "16,24"})]
    words += ["--cpus_per_trial", "2", "--data_dir", str(tmp_path / "data")]
    process = start("scripts/sweep.py", *words, "--address", cluster.address)
    error = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 2 and error.count("\n") == 1
    assert "--cpus_per_trial 2: must be at most what a node has: " in error
    assert "1 cores and 0 GPUs" in error and not (tmp_path / "data").exists()


def test_reproduce_continues_after_a_node_is_lost(cluster: Any, tmp_path: Path) -> None:
    listed = write_list(tmp_path / "list.toml", ("q1_tiny", "q2_tiny"), n_iter=12, batch_size=200)
    words = ["--experiments", str(listed)]
    found = run_and_kill_a_node(cluster, tmp_path, "scripts/reproduce.py", *words)
    undisturbed = by_hand(tmp_path / "by_hand")
    assert [read_curve(folder) for folder in found] == [undisturbed, undisturbed]
