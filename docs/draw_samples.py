"""Draws the pictures that `maekit app` offers to begin with: `python docs/draw_samples.py`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

FOLDER = Path(__file__).parents[1] / "src" / "maekit" / "app" / "pictures"
SIDE = 448
FINE = 2  # times larger drawn than kept, so that edges are smooth
Colour = tuple[int, int, int]


def gradient(canvas: Image.Image, colours: list[Colour]) -> Image.Image:
    """From top to bottom."""
    stops = np.linspace(0, 1, len(colours))
    places = np.linspace(0, 1, canvas.height)
    bands = np.stack([np.interp(places, stops, [colour[c] for colour in colours]) for c in range(3)], axis=-1)
    return Image.fromarray(np.broadcast_to(bands[:, None], (canvas.height, canvas.width, 3)).astype(np.uint8))


def glow(canvas: Image.Image, centre: tuple[float, float], radius: float, colour: Colour, blur: float) -> Image.Image:
    """A disc with a soft edge; numbers are shares of the side."""
    mask = Image.new("L", canvas.size)
    x, y, r = (value * canvas.width for value in (*centre, radius))
    ImageDraw.Draw(mask).ellipse((x - r, y - r, x + r, y + r), fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(blur * canvas.width))
    return Image.composite(Image.new("RGB", canvas.size, colour), canvas, mask)


def hills(canvas: Image.Image) -> Image.Image:
    side = canvas.width
    canvas = gradient(canvas, [(61, 90, 140), (140, 160, 190), (246, 204, 160), (240, 180, 140), (200, 150, 130)])
    canvas = glow(canvas, (0.68, 0.33), 0.13, (255, 236, 190), 0.05)
    canvas = glow(canvas, (0.68, 0.33), 0.06, (255, 250, 230), 0.002)
    draw = ImageDraw.Draw(canvas)
    across: NDArray[np.float64] = np.arange(side) / side
    far, near = np.array((150, 140, 165)), np.array((24, 44, 46))
    for layer in range(5):
        waves = np.zeros(side)
        for often, phase in ((5, 0), (11, 2), (23, 4)):
            waves += np.sin(across * often * (1 + layer * 0.4) + phase + layer * 2.1) / often
        ridge = (0.46 + layer * 0.11 - waves * (0.16 + layer * 0.04)) * side
        colour = tuple(int(value) for value in far + (near - far) * layer / 4)
        draw.polygon([(0, side), *zip(range(side), ridge.tolist(), strict=True), (side, side)], fill=colour)
    return canvas


def fruit(canvas: Image.Image) -> Image.Image:
    side = canvas.width
    canvas = gradient(canvas, [(104, 122, 118), (150, 164, 152)])
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, side * 0.62, side, side), fill=(158, 108, 72))
    for line in range(9):
        top = side * (0.62 + 0.38 * (line / 9) ** 1.3)
        draw.line((0, top, side, top + side * 0.01), fill=(134, 88, 58), width=4)
    for x, y, radius, colour in (
        (0.34, 0.52, 0.19, (222, 122, 36)), (0.7, 0.56, 0.17, (176, 34, 44)), (0.5, 0.72, 0.14, (92, 56, 110)),
        (0.22, 0.75, 0.1, (120, 158, 52)),
    ):  # fmt: skip
        canvas = glow(canvas, (x + 0.05, y + radius * 0.85), radius * 0.72, (84, 54, 38), 0.03)
        canvas = ball(canvas, (x, y), radius, colour)
    return canvas


def ball(canvas: Image.Image, centre: tuple[float, float], radius: float, colour: Colour) -> Image.Image:
    """A ball in the light of a window at the upper left."""
    values = np.asarray(canvas).astype(np.float32)
    rows, columns = np.mgrid[0 : canvas.height, 0 : canvas.width] / canvas.width
    x, y = (columns - centre[0]) / radius, (rows - centre[1]) / radius
    inside = np.clip((1 - np.hypot(x, y)) * radius * canvas.width, 0, 1)
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, None))
    light = np.clip(-0.5 * x - 0.6 * y + 0.62 * z, 0, 1)
    shaded = np.array(colour) * (0.22 + 0.85 * light)[..., None] + (255 * light**24 * 0.8)[..., None]
    return Image.fromarray((values + (shaded - values) * inside[..., None]).clip(0, 255).astype(np.uint8))


def boat(canvas: Image.Image) -> Image.Image:
    side = canvas.width
    canvas = gradient(canvas, [(92, 150, 204), (170, 206, 228), (226, 236, 236), (70, 130, 156), (20, 62, 92)])
    canvas = glow(canvas, (0.2, 0.2), 0.09, (250, 252, 255), 0.03)
    canvas = glow(canvas, (0.3, 0.23), 0.07, (250, 252, 255), 0.03)
    draw = ImageDraw.Draw(canvas)

    def shape(points: list[tuple[float, float]], colour: Colour) -> None:
        draw.polygon([(x * side, y * side) for x, y in points], fill=colour)

    draw.rectangle((0, side * 0.56, side, side * 0.575), fill=(88, 112, 108))
    shape([(0.0, 0.56), (0.12, 0.5), (0.27, 0.53), (0.4, 0.565)], (96, 116, 104))
    shape([(0.53, 0.13), (0.53, 0.62), (0.26, 0.62)], (246, 240, 226))
    shape([(0.56, 0.2), (0.56, 0.62), (0.76, 0.62)], (206, 74, 52))
    draw.line((side * 0.545, side * 0.1, side * 0.545, side * 0.7), fill=(70, 48, 36), width=9)
    shape([(0.24, 0.66), (0.8, 0.66), (0.71, 0.76), (0.31, 0.76)], (120, 60, 40))
    shape([(0.24, 0.66), (0.8, 0.66), (0.79, 0.685), (0.255, 0.685)], (232, 214, 180))
    draws = np.random.default_rng(3)
    for _ in range(150):
        x, y = draws.uniform(0, 1), draws.uniform(0.78, 1) ** 0.7
        length = draws.uniform(0.02, 0.09) * (y - 0.6) * 3
        colour = (150, 196, 208) if draws.random() < 0.5 else (30, 84, 112)
        draw.line((x * side, y * side, (x + length) * side, y * side), fill=colour, width=int(3 + 9 * (y - 0.75)))
    return canvas


def street(canvas: Image.Image) -> Image.Image:
    side = canvas.width
    canvas = gradient(canvas, [(120, 168, 214), (214, 228, 236), (238, 232, 220)])
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, side * 0.84, side, side), fill=(96, 98, 104))
    draw.rectangle((0, side * 0.84, side, side * 0.865), fill=(176, 172, 164))
    colours = [(196, 88, 70), (228, 190, 120), (110, 142, 150), (222, 208, 190)]
    left = 0.02
    for number, (width, top) in enumerate(((0.24, 0.3), (0.22, 0.2), (0.28, 0.36), (0.21, 0.26))):
        wall = colours[number]
        box = (left * side, top * side, (left + width - 0.01) * side, side * 0.84)
        draw.rectangle(box, fill=wall)
        peak = ((left + width / 2) * side, (top - 0.12) * side)
        draw.polygon([(box[0] - 10, box[1]), peak, (box[2] + 10, box[1])], fill=(104, 62, 54))
        for row in range(4):
            for column in range(2):
                x, y = left + width * (0.16 + 0.42 * column), top + 0.05 + row * 0.125
                if y > 0.6:
                    continue
                frame = (x * side, y * side, (x + width * 0.24) * side, (y + 0.08) * side)
                draw.rectangle(frame, fill=(250, 244, 228))
                lit = (row * 2 + column + number) % 5 == 0
                inner = (frame[0] + 8, frame[1] + 8, frame[2] - 8, frame[3] - 8)
                draw.rectangle(inner, fill=(250, 214, 130) if lit else (58, 74, 96))
        draw.rectangle(
            ((left + width * 0.38) * side, 0.72 * side, (left + width * 0.62) * side, 0.84 * side), fill=(60, 44, 40)
        )
        left += width
    for dash in range(5):
        draw.rectangle((dash * side * 0.24, side * 0.92, dash * side * 0.24 + side * 0.12, side * 0.932), fill="white")
    return canvas


def main() -> None:
    for draw in (boat, fruit, hills, street):
        drawn = draw(Image.new("RGB", (SIDE * FINE, SIDE * FINE))).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        drawn.save(FOLDER / f"{draw.__name__}.png", optimize=True)


if __name__ == "__main__":
    main()
