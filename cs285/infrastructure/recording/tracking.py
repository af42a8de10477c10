"""Copies of a run's log for experiment trackers: Weights & Biases and MLflow (--track)."""

from __future__ import annotations

import fcntl
import importlib.metadata
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from cs285.infrastructure.errors import UsageError, one_line
from cs285.infrastructure.lock import open_lock
from cs285.infrastructure.run_folder import read_config

PROJECT = "cs285"  # the wandb project and the MLflow experiment, unless the user has set another
DISTRIBUTIONS = {"wandb": ("wandb",), "mlflow": ("mlflow-skinny", "sqlalchemy", "alembic")}
ALWAYS_LOGGED = "TimeSinceStart"  # a scalar of every logged iteration
VIDEOS = "videos"  # MLflow's folder for them


class Service(Protocol):
    """An experiment tracker. A resumed run continues the record that it began."""

    place: str  # where the record is, for the user

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        """Open the record of the run in `folder`; `about` is the content of its config.json."""

    def record(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Add the scalars of an iteration, unless the record has them."""

    def record_video(self, tag: str, file: Path, iteration: int) -> None:
        """Add an mp4."""

    def close(self, failed: bool) -> None:
        """End the record; `failed`: before the run's last iteration."""


class Wandb:
    """Weights & Biases. Without an account it writes to LOGDIR/wandb, for `wandb sync`."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        import wandb

        has_account = "WANDB_MODE" in os.environ or wandb.login(prompt=False, verify=False)
        self._video = wandb.Video
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=about.get("id") or folder.name,
            name=folder.name,
            resume="allow",
            dir=folder,
            mode=None if has_account else "offline",
            settings=wandb.Settings(console="off", silent=True),
        )
        self.place = str(folder / "wandb" if self._run.offline else self._run.url)
        # Not in `init`, because --resume may change flags such as --n_iter.
        self._run.config.update(about, allow_val_change=True)

    def record(self, scalars: Mapping[str, float], iteration: int) -> None:
        if iteration >= self._run.step:  # a resumed run starts after what the account has
            self._run.log(dict(scalars), step=iteration)

    def record_video(self, tag: str, file: Path, iteration: int) -> None:
        self._run.log({tag: self._video(str(file), format="mp4")}, step=iteration)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class MLflow:
    """MLflow. Without a tracking server it writes to mlflow.db and mlflow/ next to the log folder.

    `mlflow ui --backend-store-uri sqlite:///cs285/data/mlflow.db` shows them.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        # An unreachable server is an error after seconds, not after minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        # Otherwise it announces each table of a new database.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self._metric = Metric
        root = folder.parent.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self.place = uri or f"sqlite:///{root}/mlflow.db"
        with open_lock(root / ".mlflow.lock") as lock:  # several runs may start at once
            fcntl.flock(lock, fcntl.LOCK_EX)
            client = self._client = MlflowClient(self.place)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = client.get_experiment_by_name(name)
            artifacts = None if uri else (root / "mlflow").as_uri()
            experiment_id = (
                experiment.experiment_id
                if experiment
                else client.create_experiment(name, artifact_location=artifacts)
            )
        self._logged: set[int] = set()  # iterations
        own_id = about.get("id") or folder.name
        found = client.search_runs([experiment_id], f"tags.`cs285.id` = '{own_id}'")
        if found:
            self._id = found[0].info.run_id
            client.update_run(self._id, status="RUNNING")
            logged = client.get_metric_history(self._id, ALWAYS_LOGGED)
            self._logged = {metric.step for metric in logged}
            return
        tags = {"mlflow.runName": folder.name, "cs285.id": own_id, "cs285.agent": about["agent"]}
        self._id = client.create_run(experiment_id, tags=tags).info.run_id
        for name, value in about["flags"].items():
            client.log_batch(self._id, params=[Param(name, str(value))])
        client.log_dict(self._id, about, "config.json")

    def record(self, scalars: Mapping[str, float], iteration: int) -> None:
        if iteration in self._logged:
            return
        now = time.time_ns() // 10**6
        metrics = [self._metric(name, value, now, iteration) for name, value in scalars.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def record_video(self, tag: str, file: Path, iteration: int) -> None:
        self._client.log_artifact(self._id, str(file), VIDEOS)

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


SERVICES: dict[str, type[Service]] = {"wandb": Wandb, "mlflow": MLflow}


def check_installed(name: str) -> None:
    """Raise UsageError if the packages of a service are not installed."""
    for distribution in DISTRIBUTIONS[name]:
        try:
            importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError as error:
            raise UsageError(
                f"--track {name}: must have the package {distribution}; run pip install "
                f"'cs285[{name}]', or pip install '.[{name}]' in the checkout"
            ) from error


class Tracker:
    """Sends the log to a service. If the service fails later on, the run continues without it."""

    def __init__(self, name: str, folder: Path) -> None:
        """Open the record of the run in `folder`. Raises UsageError: the service refuses."""
        self.name = name
        about = read_config(folder)
        try:
            self._service: Service | None = SERVICES[name](folder, about)
        except Exception as error:  # a third party's package may raise anything
            raise UsageError(
                f"--track {name}: cannot start ({_describe(error)}); must be omitted, or the "
                "service must be reachable with the account and settings in the environment"
            ) from error
        print(f"tracking in {self._service.place}", flush=True)

    def record(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Send the scalars of an iteration."""
        self._send(lambda service: service.record(scalars, iteration))

    def record_video(self, tag: str, file: Path, iteration: int) -> None:
        """Send an mp4."""
        self._send(lambda service: service.record_video(tag, file, iteration))

    def close(self, failed: bool) -> None:
        """End the record; `failed`: before the run's last iteration."""
        self._send(lambda service: service.close(failed))

    def _send(self, message: Callable[[Service], None]) -> None:
        if self._service is None:
            return
        try:
            message(self._service)
        except Exception as error:  # a third party's package may raise anything
            self._service = None
            print(
                f"warning: --track {self.name} failed ({_describe(error)}); the run continues "
                "without it, and its log folder is complete",
                file=sys.stderr,
            )


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(str(error))[:300]}"
