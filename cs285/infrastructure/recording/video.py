"""Write the frames of an episode as mp4 or GIF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imageio.v2 as imageio
import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray

Frames = Sequence[NDArray[np.uint8]]  # T frames (height, width, 3)
GIF_STRIDE = 4  # a GIF has every fourth frame, at half the size; an mp4 has all


def write_video(file: Path, frames: Frames, fps: float) -> None:
    """Write `frames` to a .gif or .mp4 file. Raises OSError: the encoder failed."""
    if file.suffix == ".gif":
        file.write_bytes(encode_gif(small_frames(frames), fps))
    else:
        imageio.mimwrite(file, list(frames), fps=fps, macro_block_size=2, ffmpeg_log_level="error")


def small_frames(frames: Frames) -> NDArray[np.uint8]:
    """Return every fourth frame at half the size, (T / 4, height / 2, width / 2, 3)."""
    return np.stack([frame[::2, ::2] for frame in frames[::GIF_STRIDE]])


def encode_gif(small: NDArray[np.uint8], fps: float) -> bytes:
    """Return `small_frames` as an animated GIF; `fps` is the rate of all frames."""
    milliseconds = 1000 * GIF_STRIDE / fps
    gif = iio.imwrite("<bytes>", small, extension=".gif", duration=milliseconds, loop=0)
    assert gif is not None
    return gif
