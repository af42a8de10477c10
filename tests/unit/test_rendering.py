import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from cs285.infrastructure.errors import UsageError
from cs285.infrastructure.recording import rendering


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the probe: only the `working` backends can render."""
    monkeypatch.setattr(rendering.sys, "platform", "linux")
    monkeypatch.setitem(sys.modules, "dm_control._render", None)  # must not load these backends
    monkeypatch.setenv("MUJOCO_GL", rendering.DISABLED)  # restored at the end of the test
    tried: list[str | None] = []

    def install(*working: str, error: str = "ImportError no library") -> list[str | None]:
        def run(command: Any, env: dict[str, str], **_: Any) -> Any:
            tried.append(env.get("MUJOCO_GL"))
            code = 0 if tried[-1] in working else 1
            return subprocess.CompletedProcess(command, code, f"{error}\n", "noise")

        monkeypatch.setattr(rendering.subprocess, "run", run)
        return tried

    return install


def test_egl_is_tried_before_osmesa(probes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    tried = probes("osmesa")
    rendering.choose_renderer("cheetah-cs285-v0", rendering.disable_renderer())
    assert tried == ["egl", "osmesa"]
    assert os.environ["MUJOCO_GL"] == "osmesa"


def test_backend_of_the_user_is_tried_first(probes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    tried = probes("egl", "osmesa")
    rendering.choose_renderer("cheetah-cs285-v0", rendering.disable_renderer())
    assert tried == ["osmesa"]


def test_error_without_opengl_names_the_packages(probes: Any) -> None:
    tried = probes()
    with pytest.raises(UsageError, match=r"no library.*install libegl1 or libosmesa6") as caught:
        rendering.choose_renderer("cheetah-cs285-v0", None)
    assert tried == ["egl", "osmesa"]
    assert "\n" not in str(caught.value)


def test_error_of_a_constructor_names_the_constructor(probes: Any) -> None:
    probes(error="its constructor raised TypeError (no arguments; with {'render_mode': 'x'})")
    with pytest.raises(UsageError, match="unless you give its constructor the argument render_mo"):
        rendering.choose_renderer("cheetah-cs285-v0", None)


def test_macos_uses_glfw(probes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = probes("glfw")
    monkeypatch.setattr(rendering.sys, "platform", "darwin")
    rendering.choose_renderer("cheetah-cs285-v0", None)
    assert tried == ["glfw"]


def test_error_includes_why_a_backend_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "LINUX_BACKENDS", ())
    monkeypatch.setattr(rendering, "OTHER_BACKENDS", ())
    with pytest.raises(UsageError, match=r"nonsense: .*nonsense.*; must be omitted") as caught:
        rendering.choose_renderer("cheetah-cs285-v0", "nonsense")
    assert "\n" not in str(caught.value)


def test_run_without_videos_needs_no_opengl(run_tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    run_tiny(n_iter=1)
    assert os.environ["MUJOCO_GL"] == rendering.DISABLED


def test_backend_that_hangs_is_skipped(probes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    probes("osmesa")
    probe = rendering.subprocess.run

    def run(command: Any, env: dict[str, str], timeout: float, **options: Any) -> Any:
        if env["MUJOCO_GL"] == "egl":
            raise subprocess.TimeoutExpired(command, timeout)
        return probe(command, env=env, timeout=timeout, **options)

    monkeypatch.setattr(rendering.subprocess, "run", run)
    rendering.choose_renderer("cheetah-cs285-v0", None)
    assert os.environ["MUJOCO_GL"] == "osmesa"


@pytest.mark.parametrize(("loaded", "reloads"), [("off", 1), ("glfw", 1), ("egl", 0)])
def test_dm_control_keeps_a_backend_that_is_loaded(
    loaded: str, reloads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(BACKEND=loaded)
    reloaded: list[Any] = []
    monkeypatch.setitem(sys.modules, "dm_control._render", module)
    monkeypatch.setattr(rendering.importlib, "reload", reloaded.append)
    monkeypatch.setenv("MUJOCO_GL", rendering.DISABLED)
    rendering.restore_renderer("osmesa")
    assert reloaded == [module] * reloads
