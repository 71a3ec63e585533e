"""Resizing by a matrix for each axis: the interpolation that pycaffe took from scikit-image and SciPy.

Interpolating, and smoothing before it, are linear and separable: ``out = R @ image @ C.T`` with R for the rows and C
for the columns. Two conventions of where a pixel lies are in use, and pycaffe uses both, by the number of channels:

- cells: a pixel covers [i - 1/2, i + 1/2], the image's outer edges meet, outside of it all is zero, and an axis that
  shrinks by a factor f > 1 is smoothed by a Gaussian of (f - 1) / 2 pixels first:
  ``skimage.transform.resize(mode="constant")``, version 0.15 and later. Versions before did not smooth;
  ``smooth=False`` gives their numbers.
- points: the first and last pixels of both images meet: ``scipy.ndimage.zoom``.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli.errors import ShapeError


class ArrayShapeError(ShapeError, ValueError):
    """An array of the wrong shape, where pycaffe raised ValueError."""


def resize_cells(image: NDArray[Any], dims: tuple[int, int], order: int = 1, smooth: bool = True) -> NDArray[Any]:
    """A float (H, W, ...) image at ``dims`` = (height, width), zero outside;
    ``order`` 0 to 5 is the spline's, 1 linear.
    """
    resized = _apply(image, dims, order, "smooth cells" if smooth else "cells")
    return np.clip(resized, min(image.min(), 0), max(image.max(), 0), out=resized)  # splines swing past the values


def zoom_points(image: NDArray[Any], dims: tuple[int, int], order: int = 1) -> NDArray[Any]:
    """A float (H, W, ...) image at ``dims`` = (height, width), its corner pixels in the corners."""
    return _apply(image, dims, order, "points")


def _apply(image: NDArray[Any], dims: tuple[int, int], order: int, rule: str) -> NDArray[Any]:
    if image.ndim < 2 or min(*image.shape, *dims) < 1:
        raise ArrayShapeError(
            f"cannot resize an image of shape {image.shape} to {dims[0]} x {dims[1]}; "
            "it takes (height, width, channels)"
        )
    if order not in range(6):
        raise ArrayShapeError(f"interpolation order {order!r}: expected 0 (nearest), 1 (linear), or 2 to 5 (splines)")
    (height, width), rest = image.shape[:2], image.shape[2:]
    rows, columns = _matrix(height, dims[0], order, rule), _matrix(width, dims[1], order, rule)
    tall = (rows @ image.reshape(height, -1)).reshape(dims[0], width, -1)
    resized: NDArray[Any] = np.matmul(columns, tall).reshape(*dims, *rest)
    return resized.astype(image.dtype)


@functools.lru_cache(maxsize=32)
def _matrix(size: int, new_size: int, order: int, rule: str) -> NDArray[np.float64]:
    """The (new_size, size) matrix that resizes an axis."""
    out = np.arange(new_size)
    if rule == "points":
        pad = 0
        places = out * ((size - 1) / (new_size - 1) if new_size > 1 else 1.0)
    else:
        pad = 1 if order < 2 else 12  # zeros around the image: all that linear weights reach, most of what splines do
        places = (out + 0.5) * (size / new_size) - 0.5 + pad
    padded = size + 2 * pad
    matrix = _spline_weights(places, padded, order)
    if order > 1:  # a spline goes through the pixels, its coefficients are not the pixels
        matrix = np.linalg.solve(_spline_weights(np.arange(padded), padded, order).T, matrix.T).T
    matrix = matrix[:, pad : pad + size]
    if (
        rule == "points"
    ):  # for some sizes the last place is rounded past the last pixel, which SciPy makes a line of zeros
        matrix[places > size - 1] = 0
    if rule == "smooth cells" and size > new_size:
        matrix = _smoothed(matrix, (size / new_size - 1) / 2)
    return matrix


def _spline_weights(places: NDArray[Any], size: int, order: int) -> NDArray[np.float64]:
    """What coefficient j adds at each place of an axis of that size,
    which goes on mirrored at its first and last pixel.
    """
    knots = np.arange(-order, size + order)
    weights = _b_spline(places[:, None] - knots, order)
    period = max(2 * (size - 1), 1)
    mirrored = np.abs((knots + size - 1) % period - (size - 1)) if size > 1 else np.zeros_like(knots)
    folded = np.zeros((len(places), size))
    np.add.at(folded.T, mirrored, weights.T)
    return folded


def _b_spline(x: NDArray[Any], order: int) -> NDArray[np.float64]:
    """The centred cardinal B-spline: a box of width 1, ``order`` times smoothed by itself."""
    if order == 0:
        return ((x >= -0.5) & (x < 0.5)).astype(np.float64)
    half = (order + 1) / 2
    left, right = _b_spline(x + 0.5, order - 1), _b_spline(x - 0.5, order - 1)
    return ((half + x) * left + (half - x) * right) / order


def _smoothed(matrix: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """``matrix @ G``, where G smooths by a Gaussian, cut off at four sigma, of an image that is zero outside."""
    radius = math.floor(4 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    size = matrix.shape[1]
    wide = np.pad(matrix, ((0, 0), (radius, radius)))
    smoothed = np.zeros_like(matrix)
    for shift, tap in enumerate(taps):
        smoothed += tap * wide[:, shift : shift + size]
    return smoothed
