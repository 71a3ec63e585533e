"""What nets are made of.

Each function adds layers to the NetSpec under their published names and returns the last top.
"""

from __future__ import annotations

from typing import Any

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffe.net_spec import params as P

XAVIER = {"type": "xavier"}
MSRA = {"type": "msra"}


def gaussian(std: float, **more: Any) -> dict[str, Any]:
    return {"type": "gaussian", "std": std, **more}


def constant(value: float = 0) -> dict[str, Any]:
    return {"type": "constant", "value": value}


def learn(rate: float = 1, *, bias: bool = True) -> list[dict[str, float]]:
    """Weights learn at ``rate``; biases at twice that, without decay."""
    weights = {"lr_mult": rate, "decay_mult": 1}
    return [weights, {"lr_mult": 2 * rate, "decay_mult": 0}] if bias else [weights]


def conv(
    n: NetSpec, name: str, bottom: Top, num_output: int, kernel_size: int, *, relu: str = "", **settings: Any
) -> Top:
    """A convolution, and in place over it a ReLU of the name given."""
    settings.setdefault("param", learn(bias=settings.get("bias_term", True)))
    n[name] = L.Convolution(bottom, num_output=num_output, kernel_size=kernel_size, **settings)
    return rectify(n, relu, n[name]) if relu else n[name]


def inner(
    n: NetSpec, name: str, bottom: Top, num_output: int, *, relu: str = "", drop: str = "", **settings: Any
) -> Top:
    """An inner product, and in place over it a ReLU and a Dropout of one half, of the names given."""
    settings.setdefault("param", learn())
    n[name] = L.InnerProduct(bottom, num_output=num_output, **settings)
    top = rectify(n, relu, n[name]) if relu else n[name]
    return dropout(n, drop, top) if drop else top


def rectify(n: NetSpec, name: str, bottom: Top) -> Top:
    n[name] = L.ReLU(bottom, in_place=True)
    return n[name]


def dropout(n: NetSpec, name: str, bottom: Top, ratio: float = 0.5) -> Top:
    n[name] = L.Dropout(bottom, dropout_ratio=ratio, in_place=True)
    return n[name]


def max_pool(n: NetSpec, name: str, bottom: Top, kernel_size: int, stride: int, **settings: Any) -> Top:
    n[name] = L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=kernel_size, stride=stride, **settings)
    return n[name]


def ave_pool(n: NetSpec, name: str, bottom: Top, kernel_size: int = 0, stride: int = 1) -> Top:
    """Average pooling; over the whole picture when no kernel is given."""
    size = {"kernel_size": kernel_size, "stride": stride} if kernel_size else {"global_pooling": True}
    n[name] = L.Pooling(bottom, pool=P.Pooling.AVE, **size)
    return n[name]


def lrn(n: NetSpec, name: str, bottom: Top, alpha: float = 0.0001, **settings: Any) -> Top:
    n[name] = L.LRN(bottom, local_size=5, alpha=alpha, beta=0.75, **settings)
    return n[name]
