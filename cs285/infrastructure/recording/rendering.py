"""MuJoCo's OpenGL backend: none without videos, else the first one that works here."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.run_folder import FROM_PYTHON

VARIABLE, DISABLED = "MUJOCO_GL", "disabled"
LINUX_BACKENDS = ("egl", "osmesa")  # EGL first, because it uses a GPU if there is one
OTHER_BACKENDS = ("glfw",)
PROBE_SECONDS = 120
MUJOCO_TASK = "InvertedPendulum-v5"
# The probe ends with os._exit, because the destructors of a failed renderer print more errors.
_PROBE = """
import os, sys
try:
    from cs285.envs import make_env
    env = make_env(tuple(sys.argv[1:]), render_mode="rgb_array")
    env.reset()
    env.render()
except BaseException as error:
    print(type(error).__name__, *str(error).split(), flush=True)
    os._exit(1)
os._exit(0)
"""


def disable_renderer() -> str | None:
    """Prevent MuJoCo from loading OpenGL, and return the user's backend.

    MuJoCo's import loads the backend in MUJOCO_GL, and fails if that backend is missing.
    """
    chosen = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = DISABLED
    return None if chosen == DISABLED else chosen


def restore_renderer(chosen: str | None) -> None:
    """Let MuJoCo load the user's `chosen` backend, or its own default, which can open a window."""
    os.environ.pop(VARIABLE, None)
    if chosen:
        os.environ[VARIABLE] = chosen
    _reload_dm_control()


def _reload_dm_control() -> None:
    """Let DeepMind Control, which reads MUJOCO_GL only on import, read it again.

    EGL or OSMesa stays once it is loaded, because a process can load only one of them.
    """
    module = sys.modules.get("dm_control._render")
    if module and module.BACKEND not in LINUX_BACKENDS:
        importlib.reload(module)


def choose_renderer(
    task: str | tuple[str, ...], chosen: str | None, argument: str = "--video_log_freq"
) -> None:
    """Set MUJOCO_GL to a backend that renders a task (see make_env), if possible to `chosen`.

    Each backend is tried in a separate process, because a failed one leaves OpenGL unusable. That
    process does not know a task that is a class or a function of this one, and renders another.
    Raises UsageError: no backend renders. The message names the flag `argument`, which
    needs one, and what to do.
    """
    words = (task,) if isinstance(task, str) else task
    env_name = words[0]
    is_known = not env_name.startswith(FROM_PYTHON)
    words = words if is_known else (MUJOCO_TASK,)
    defaults = LINUX_BACKENDS if sys.platform.startswith("linux") else OTHER_BACKENDS
    reasons = []
    for backend in dict.fromkeys([*([chosen] if chosen else []), *defaults]):
        try:
            probe = subprocess.run(
                [sys.executable, "-c", _PROBE, *words],
                env={**os.environ, VARIABLE: backend},
                capture_output=True,
                text=True,
                timeout=PROBE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            reasons.append(f"{backend}: no answer in {PROBE_SECONDS} s")
            continue
        if probe.returncode == 0:
            os.environ[VARIABLE] = backend
            _reload_dm_control()
            return
        reasons.append(f"{backend}: {probe.stdout.strip() or probe.stderr.strip()[-200:]}")
    if not is_known:  # it may render without MuJoCo
        restore_renderer(chosen)
        return
    remedy = "install libegl1 or libosmesa6 (MuJoCo tasks) or pygame (classic control)"
    if all("raised TypeError" in reason and "'render_mode'" in reason for reason in reasons):
        remedy = "give its constructor the argument render_mode"
    raise UsageError(
        f"{argument}: {env_name} cannot be rendered here ({'; '.join(reasons)}); must be omitted "
        f"unless you {remedy}"
    )
