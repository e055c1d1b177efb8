"""Rendered pictures of an object, with or without defects."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from demo.defects import DEFECTS, defects_of
from demo.products import OBJECTS, Product
from demo.surface import Map, Pixels, Surface, edge, noise, rgb, turned
from demo.vocabulary import VOCABULARY


def render(
    object_name: str, defects: Sequence[str], rng: np.random.Generator, size: tuple[int, int]
) -> tuple[Pixels, Pixels]:
    """One picture of an object, and the mask of its defects.

    Generators in the same state give the same pose, light and noise, whatever the defects are.

    Args:
        object_name: A key of :data:`OBJECTS`.
        defects: Labels out of :func:`defects_of` the object; none for a normal picture.
        rng: Source of all random numbers.
        size: Height and width in pixels.

    Returns:
        RGB picture ``(H, W, 3)``, and the defect id of every pixel ``(H, W)``, 0 without a defect.

    Raises:
        ValueError: If the object or one of the labels is unknown.
    """
    product = OBJECTS.get(object_name)
    if product is None:
        raise ValueError(f"unknown object {object_name!r}; known: {', '.join(OBJECTS)}")
    for name in defects:
        if name not in defects_of(object_name):
            choices = ", ".join(defects_of(object_name))
            raise ValueError(f"{object_name}: unknown defect {name!r}; known: {choices}")
    labels = VOCABULARY[object_name]
    return render_product(product, {name: labels.index(name) + 1 for name in defects}, rng, size)


def render_product(
    product: Product, defects: Mapping[str, int], rng: np.random.Generator, size: tuple[int, int]
) -> tuple[Pixels, Pixels]:
    """As :func:`render`, for any product.

    Args:
        product: What to photograph.
        defects: Keys of :data:`DEFECTS`, and the number that marks each of them in the mask.
        rng: Source of all random numbers.
        size: Height and width in pixels.
    """
    seeds = rng.integers(2**63, size=3)
    scene, damage, camera = (np.random.default_rng(int(seed)) for seed in seeds)
    surface = product.draw(*_pose(product, scene, size), scene)
    for name, number in defects.items():
        # A defect outside the frame is drawn again.
        while not surface.cover.any():
            DEFECTS[name](surface, damage)
        surface.mask[surface.cover > 0.5 * surface.cover.max()] = number
        surface.cover[:] = 0
    return _photograph(surface, product, camera), surface.mask


def _pose(product: Product, rng: np.random.Generator, size: tuple[int, int]) -> tuple[Map, Map]:
    """The object coordinates of every pixel, for a random place, rotation and distance."""
    # A board is 1.22 units long to either side; in a narrow picture the width sets the scale.
    scale = min(size[0], size[1] / 1.35) / 2 * rng.uniform(0.8, 0.93)
    turn = rng.uniform(-product.turn, product.turn)
    middle_x = size[1] / 2 + size[0] * rng.uniform(-0.05, 0.05)
    middle_y = size[0] / 2 + size[0] * rng.uniform(-0.03, 0.03)
    x = ((np.arange(size[1], dtype=np.float32) - middle_x) / scale)[None, :]
    y = ((np.arange(size[0], dtype=np.float32) - middle_y) / scale)[:, None]
    return turned(x, y, turn)


def _light(relief: Map, pixel: float, rng: np.random.Generator) -> tuple[Map, Map]:
    """Brightness of a matt surface (1 where it is flat) and highlights of a shiny one.

    Args:
        relief: Height above the table, in object units.
        pixel: Side of a pixel in object units.
        rng: Moves the lamp a little; it always stands at the upper left.
    """
    slope_x, slope_y = np.zeros_like(relief), np.zeros_like(relief)
    slope_x[:, 1:-1] = (relief[:, 2:] - relief[:, :-2]) / (2 * pixel)
    slope_y[1:-1] = (relief[2:] - relief[:-2]) / (2 * pixel)
    lamp_x, lamp_y = -0.45 + rng.uniform(-0.08, 0.08), -0.5 + rng.uniform(-0.08, 0.08)
    steepness = np.sqrt(1 + slope_x**2 + slope_y**2)
    matt = np.clip((1 - lamp_x * slope_x - lamp_y * slope_y) / steepness, 0, 2)
    # Blinn: the mirror direction lies half way between the lamp and the camera above.
    half = (1 - 0.45 * (lamp_x * slope_x + lamp_y * slope_y)) / steepness
    shine = np.clip(half / math.sqrt(1 + 0.45**2 * (lamp_x**2 + lamp_y**2)), 0, 1) ** 2
    return matt, (shine * shine * shine * shine) ** 4


def _photograph(surface: Surface, product: Product, rng: np.random.Generator) -> Pixels:
    """Lights the surface, puts it on the table and takes the picture."""
    size = surface.outline.shape
    inside = surface.inside()
    grain, mottle = noise(rng, size, size[0] // 3), noise(rng, size, 8)
    relief = surface.height + product.rough * inside * grain
    matt, shine = _light(relief, surface.pixel, rng)
    brightness = (0.4 + 0.6 * matt) * (1 + 0.02 * mottle)
    hue = rng.normal(1, 0.03, (3, 1, 1)).astype(np.float32)
    thing = surface.color * hue * brightness + product.gloss * shine

    reach = max(round(0.06 / surface.pixel), 1)
    shifted = surface.outline.copy()
    shifted[reach:, reach:] = surface.outline[:-reach, :-reach]
    shadow = edge(shifted, 0.24)
    table = rgb(product.backdrop) * rng.normal(1, 0.03, (3, 1, 1)).astype(np.float32)
    table = table * ((1 + 0.02 * grain + 0.015 * mottle) * (1 - 0.4 * shadow))

    x = np.linspace(-1, 1, size[1], dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, size[0], dtype=np.float32)[:, None]
    tilt_x, tilt_y = rng.uniform(-0.1, 0.1, 2).tolist()
    lamp = rng.uniform(0.86, 1.14) * (1 + tilt_x * x + tilt_y * y - 0.12 * (x * x + y * y))
    picture = (table + (thing - table) * inside) * lamp
    picture += rng.uniform(0, 0.04)
    picture += rng.uniform(0.003, 0.014) * rng.standard_normal(size, dtype=np.float32)
    return np.ascontiguousarray((np.clip(picture, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))
