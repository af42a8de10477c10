"""The figures of a diagnosis: error curves, a map of plans, and a video of imagined states."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cs285.analysis.diagnosis.model_error import OpenLoop, observations, rms
from cs285.analysis.diagnosis.plan_check import Agreement, Findings, PlanCheck
from cs285.envs import make_env
from cs285.envs.checked_env import close_env
from cs285.envs.obstacles.drawing import draw_obstacles
from cs285.infrastructure.errors import UsageError, message_of
from cs285.infrastructure.recording.rendering import choose_renderer
from cs285.infrastructure.recording.video import Frames, write_video
from cs285.infrastructure.replay_buffer import Path
from cs285.models.base_model import DynamicsModel
from cs285.models.open_loop import imagine

# Tasks whose observations begin with qpos and qvel, and the divisor of qvel.
VELOCITY_SCALES = {"cheetah-cs285-v0": 1.0, "reacher-cs285-v0": 10.0}
VIDEO_STEPS, VIDEO_FPS = 100, 25  # in slow motion
_PICTURED = "obstacles-cs285-v0, cheetah-cs285-v0 and reacher-cs285-v0"
_MAP = """Blue: the real path of the point mass. Orange: the path that the model predicts for each
plan; the dot is the state in which the plan was made. If an orange path crosses an obstacle, the
model does not know that obstacle."""
_VIDEO = """Both halves start in the same state, in the middle of the policy's first episode, and
apply the same actions. Left: the states that the ensemble predicts (mean of its members). Right:
the real states. The video is in slow motion."""


class Picture(NamedTuple):
    """A map or a video with its explanation, or notes on why there is none."""

    text: str = ""
    medium: Figure | bytes | None = None  # bytes: an mp4
    notes: Sequence[str] = ()


def picture_of(
    task: tuple[str, ...], users_renderer: str | None, model: DynamicsModel, found: Findings
) -> Picture:
    """Return a map for the obstacles task, a video for MuJoCo tasks, and a note for other tasks.

    `task` is the run's (see RunConfig.task).
    `users_renderer` is the user's choice of MuJoCo renderer, see rendering.choose_renderer.
    """
    env_name, paths = task[0], next(iter(found.paths.values()))
    if env_name == "obstacles-cs285-v0":
        return Picture(_MAP, draw_plans_on_map(paths, found.check))
    if env_name not in VELOCITY_SCALES:
        note = f"There is no picture of {env_name}. Pictures exist for {_PICTURED}."
        return Picture(notes=[note])
    try:
        choose_renderer(task, users_renderer)
    except UsageError:
        return Picture(
            notes=[
                "The video was skipped because OpenGL is not available. Install libegl1 or "
                "libosmesa6 with apt-get, and run diagnose.py again."
            ]
        )
    imagined, real = imagined_and_real(model, paths[0], VIDEO_STEPS)
    env = make_env(task, render_mode="rgb_array")
    frames = side_by_side(env, VELOCITY_SCALES[env_name], imagined, real)
    close_env(env)
    try:
        return Picture(_VIDEO, encode_mp4(frames, VIDEO_FPS))
    except OSError as error:
        reason = message_of(error)[:200]
        return Picture(notes=[f"The video was skipped because the encoder failed: {reason}"])


def imagined_and_real(
    model: DynamicsModel, path: Path, steps: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return imagined and real states of `steps` env steps in the middle of `path`.

    If `path` is shorter, use all of it. Imagined states are means over the members. Both arrays
    have the shape (steps + 1, O).
    """
    steps = min(steps, path.length)
    start = (path.length - steps) // 2
    acs = path.acs[start : start + steps]
    imagined = imagine(model, path.obs[start][None], acs[None]).observations
    return imagined[:, 0].mean(0), observations(path)[start : start + steps + 1]


def side_by_side(
    env: gym.Env, velocity_scale: float, imagined: NDArray[np.float32], real: NDArray[np.float32]
) -> list[NDArray[np.uint8]]:
    """Draw imagined states (T, O) to the left of real states (T, O), with the step number.

    `env` is a MuJoCo task with render mode rgb_array. Its observations must begin with qpos and
    qvel / `velocity_scale`. The last state remains set in `env`.

    Return T frames (height, width, 3).
    """
    env.reset()  # places objects without joints, such as the reacher's target
    frames = []
    for step, (left, right) in enumerate(zip(imagined, real, strict=True)):
        halves = ((left, f"imagined, step {step}"), (right, "real"))
        frames.append(np.hstack([_picture(env, obs, velocity_scale, text) for obs, text in halves]))
    return frames


def _picture(
    env: gym.Env, obs: NDArray[np.float32], velocity_scale: float, label: str
) -> NDArray[np.uint8]:
    task = env.unwrapped
    nq, nv = task.model.nq, task.model.nv  # type: ignore[attr-defined]
    qpos, qvel = obs[:nq], velocity_scale * obs[nq : nq + nv]
    task.set_state(qpos.astype(np.float64), qvel.astype(np.float64))  # type: ignore[attr-defined]
    picture = Image.fromarray(np.asarray(env.render()))
    place, font = (10, 10), ImageFont.load_default(22)  # pixels
    ImageDraw.Draw(picture).text(place, label, "white", font, stroke_width=2, stroke_fill="black")
    return np.asarray(picture)


def encode_mp4(frames: Frames, fps: float) -> bytes:
    """Return the frames as an mp4. Raises OSError: the encoder fails."""
    with tempfile.TemporaryDirectory() as folder:
        file = FilePath(folder) / "video.mp4"
        write_video(file, frames, fps)
        return file.read_bytes()


def draw_plans_on_map(paths: Sequence[Path], check: PlanCheck) -> Figure:
    """Draw the map of the obstacles task, with the real paths and the predicted plans."""
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.add_subplot(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xlabel="x", ylabel="y")
    draw_obstacles(axes, paths[0].obs[0, 2:4].astype(np.float64))
    for plan in check.plans.states:
        axes.plot(*plan[:, :2].T, color="tab:orange", linewidth=1, label="predicted plan")
        axes.plot(*plan[0, :2], ".", color="tab:orange")
    for path in paths:
        axes.plot(*observations(path)[:, :2].T, color="tab:blue", linewidth=2, label="real path")
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(once.values(), once.keys(), loc="upper right")
    return figure


def draw_errors(loops: Mapping[str, OpenLoop], plan_horizon: int) -> Figure:
    """Draw error and spread against horizon, with one panel per kind of episode."""
    figure = Figure(figsize=(5.5, 2.9 * len(loops)), layout="constrained")
    panels = figure.subplots(len(loops), sharex=True, sharey=True, squeeze=False).flat
    for axes, (name, loop) in zip(panels, loops.items(), strict=True):
        steps, of_mean = np.arange(1, loop.horizon + 1), loop.errors_of_mean()
        for number, curve in enumerate(rms(loop.errors_of_members(), 1)):
            label = None if number else "each member"
            axes.plot(steps, curve, color="tab:blue", linewidth=0.7, alpha=0.6, label=label)
        axes.fill_between(
            steps, *np.quantile(of_mean, [0.1, 0.9], axis=0), color="tab:blue", alpha=0.15, lw=0
        )
        axes.plot(steps, rms(of_mean, 0), color="tab:blue", linewidth=2.5, label="mean of members")
        axes.plot(steps, rms(loop.spreads(), 0), "--", color="tab:red", label="spread of members")
        axes.plot(steps, rms(loop.errors_of_no_change(), 0), "k:", label="no-change baseline")
        if plan_horizon <= loop.horizon:
            axes.axvline(plan_horizon, color="black", linewidth=0.5)
        axes.set(title=f"Episodes: {name}", yscale=_scale(of_mean))
        axes.set_ylabel("error (std of the data)")
        axes.grid(alpha=0.3)
    _label_steps(axes)
    axes.legend(fontsize="small", ncols=2)
    return figure


def draw_dimensions(loops: Mapping[str, OpenLoop]) -> Figure:
    """Draw the error of each observation dimension against horizon, over members and starts."""
    errors = {name: rms(loop.errors_by_dimension(), 0).T for name, loop in loops.items()}  # (O, H)
    O = len(next(iter(errors.values())))
    figure = Figure(figsize=(5.5, 0.6 + len(loops) * (0.7 + min(0.16 * O, 6))))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(len(loops), sharex=True, squeeze=False).flat
    known = np.concatenate([each[each > 0] for each in errors.values()])
    scale = LogNorm(*np.quantile(known, [0.02, 1])) if len(known) else None
    for axes, (name, each) in zip(panels, errors.items(), strict=True):
        H = each.shape[1]
        image = axes.imshow(each, norm=scale, aspect="auto", extent=(0.5, H + 0.5, O - 0.5, -0.5))
        axes.set(title=f"Episodes: {name}", ylabel="dimension")
        axes.set_yticks(range(0, O, -(-O // 12)))
    longest = max(each.shape[1] for each in errors.values())
    axes.set_xlim(0.5, longest + 0.5)
    _label_steps(axes)
    figure.colorbar(image, ax=figure.axes, label="error (std of the data)", format="%.2g")
    return figure


def draw_spread(loops: Mapping[str, OpenLoop], step: int) -> Figure:
    """Draw the rank correlation of spread and error by horizon, and both after `step` env steps.

    `step` is cut to the shortest horizon of `loops`.
    """
    figure = Figure(figsize=(5.5, 6), layout="constrained")
    curve, cloud = figure.subplots(2)
    step = min(step, *(loop.horizon for loop in loops.values()))
    for name, loop in loops.items():
        curve.plot(np.arange(1, loop.horizon + 1), loop.rank_correlation(), label=name)
        spreads, errors = loop.spreads()[:, step - 1], loop.errors_of_mean()[:, step - 1]
        cloud.plot(spreads, errors, ".", alpha=0.6)
    curve.axhline(0, color="black", linewidth=0.7)
    curve.set(ylabel="rank correlation\nof spread and error", ylim=(-1.05, 1.05))
    _label_steps(curve)
    curve.legend(fontsize="small")
    curve.grid(alpha=0.3)
    cloud.set(xlabel="spread of members (std of the data)")
    cloud.set(ylabel="error of the mean (std of the data)")
    cloud.set(title=f"After {step} env steps", xscale=_scale(spreads), yscale=_scale(errors))
    return figure


def draw_returns(agreements: Mapping[str, Agreement]) -> Figure:
    """Draw actual against predicted returns, with one panel per source of the actual returns."""
    figure = Figure(figsize=(2.75 * len(agreements), 3.2), layout="constrained")
    panels = figure.subplots(1, len(agreements), sharex=True, sharey=True, squeeze=False).flat
    for axes, (name, each) in zip(panels, agreements.items(), strict=True):
        axes.plot(each.predicted, each.actual, ".", alpha=0.7)
        axes.axline((0, 0), slope=1, color="black", linewidth=0.8)
        axes.set(title=f"Actual: {name}", xlabel="predicted return")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("actual return")
    return figure


def _label_steps(axes: Axes) -> None:
    axes.set_xlabel("env steps ahead")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _scale(values: NDArray[np.floating]) -> str:
    """Return the axis scale for non-negative values. A log axis cannot show only zeros."""
    return "log" if (values > 0).any() else "linear"
