"""Pictures of a pole on a cart or a pivot."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 600, 400  # pixels
HALF_VIEW = 1.8  # m to the left and to the right of the centre
FINE = 2  # the picture is drawn this much larger and then scaled down, which smooths edges


def draw(pivot: float, angle: float, length: float, force: float) -> NDArray[np.uint8]:
    """Return pixels (400, 600, 3) of the pole; the target of its tip is a cross.

    The centre of the view follows the pivot in steps of its width. A bar below shows the force.
    """
    scale = FINE * WIDTH / (2 * HALF_VIEW)
    image = Image.new("RGB", (FINE * WIDTH, FINE * HEIGHT), "white")
    canvas = ImageDraw.Draw(image)
    view = 2 * HALF_VIEW * round(pivot / (2 * HALF_VIEW))

    def pixel(x: float, y: float) -> tuple[float, float]:
        return FINE * WIDTH / 2 + scale * (x - view), FINE * HEIGHT / 2 - scale * y

    tip = pivot + length * math.sin(angle), -length * math.cos(angle)
    left, top = pixel(pivot - 0.15, 0.08)
    right, bottom = pixel(pivot + 0.15, -0.08)
    canvas.line([pixel(view - HALF_VIEW, 0), pixel(view + HALF_VIEW, 0)], "lightgray", FINE * 2)
    canvas.rectangle((left, top, right, bottom), "dimgray")
    canvas.line([pixel(pivot, 0), pixel(*tip)], "darkorange", FINE * 6)
    x, y = pixel(0, length)
    arm = FINE * 8
    canvas.line([(x - arm, y), (x + arm, y)], "green", FINE * 2)
    canvas.line([(x, y - arm), (x, y + arm)], "green", FINE * 2)
    base = pixel(view, -1.1)
    canvas.line([base, (base[0] + FINE * 10 * force, base[1])], "steelblue", FINE * 8)
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))
