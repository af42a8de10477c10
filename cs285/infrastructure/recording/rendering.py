"""Which OpenGL MuJoCo draws with: none unless videos are asked for, else whatever works here."""

from __future__ import annotations

import os
import subprocess
import sys

from cs285.infrastructure.errors import UsageError

VARIABLE, DISABLED = "MUJOCO_GL", "disabled"
LINUX_BACKENDS = ("egl", "osmesa")  # EGL first: it uses a GPU where there is one
OTHER_BACKENDS = ("glfw",)
PROBE_SECONDS = 120
# Ends by os._exit: the destructors of a renderer that failed have complaints of their own.
_PROBE = """
import os, sys
try:
    from cs285.envs import make_env
    env = make_env(sys.argv[1], render_mode="rgb_array")
    env.reset()
    env.render()
except BaseException as error:
    print(type(error).__name__, *str(error).split(), flush=True)
    os._exit(1)
os._exit(0)
"""


def disable_renderer() -> str | None:
    """Have MuJoCo load no OpenGL, and return what the user had chosen.

    At its import it would load what MUJOCO_GL names, and fail where that is missing.
    """
    chosen = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = DISABLED
    return None if chosen == DISABLED else chosen


def choose_renderer(env_name: str, chosen: str | None) -> None:
    """Set MUJOCO_GL to a backend that renders `env_name` here, the user's `chosen` one first.

    Tried in processes of their own: a backend that fails leaves OpenGL unusable in its process.
    Raises UsageError, naming what to install, where nothing renders.
    """
    usual = LINUX_BACKENDS if sys.platform.startswith("linux") else OTHER_BACKENDS
    reasons = []
    for backend in dict.fromkeys([*([chosen] if chosen else []), *usual]):
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, env_name],
            env={**os.environ, VARIABLE: backend},
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
        )
        if probe.returncode == 0:
            os.environ[VARIABLE] = backend
            return
        reasons.append(f"{backend}: {probe.stdout.strip() or probe.stderr.strip()[-200:]}")
    raise UsageError(
        f"--video_log_freq: {env_name} cannot be rendered here ({'; '.join(reasons)}); install "
        "libegl1 or libosmesa6 (MuJoCo tasks) or pygame (classic control), or give -1"
    )
