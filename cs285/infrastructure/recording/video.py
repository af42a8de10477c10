"""Write the frames of an episode as mp4 or GIF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imageio.v2 as imageio
import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray

Frames = Sequence[NDArray[np.uint8]]  # T frames (height, width, 3)
GIF_FPS = 25  # at most about; an mp4 has all frames


def write_video(file: Path, frames: Frames, fps: float) -> None:
    """Write `frames` to a .gif or .mp4 file. Raises OSError: the encoder failed."""
    if file.suffix == ".gif":
        file.write_bytes(encode_gif(small_frames(frames, fps), fps))
    else:
        imageio.mimwrite(file, list(frames), fps=fps, macro_block_size=2, ffmpeg_log_level="error")


def small_frames(frames: Frames, fps: float) -> NDArray[np.uint8]:
    """Return every `stride(fps)`-th frame at half the size, (T', height / 2, width / 2, 3)."""
    return np.stack([frame[::2, ::2] for frame in frames[:: stride(fps)]])


def stride(fps: float) -> int:
    """Return how many frames at the rate `fps` become one frame of a GIF."""
    return max(1, round(fps / GIF_FPS))


def encode_gif(small: NDArray[np.uint8], fps: float) -> bytes:
    """Return `small_frames` as an animated GIF; `fps` is the rate of all frames."""
    milliseconds = 1000 * stride(fps) / fps
    gif = iio.imwrite("<bytes>", small, extension=".gif", duration=milliseconds, loop=0)
    assert gif is not None
    return gif
