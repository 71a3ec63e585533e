"""ResNet-50, -101 and -152 (K. He and others, Deep Residual Learning for Image Recognition, 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from string import ascii_lowercase
from typing import Any

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from scripts.zoo import parts
from scripts.zoo.imagenet import IMAGE_MEAN, ilsvrc12
from scripts.zoo.model import Model, deploy, solver, train_val

#: Blocks in each of the stages 2 to 5.
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def models() -> Iterator[Model]:
    for depth in DEPTHS:
        name = f"resnet{depth}"
        body = partial(resnet, depth=depth)
        yield Model(
            name,
            f"ResNet-{depth} on ILSVRC 2012.",
            {
                "deploy.prototxt": deploy(f"ResNet-{depth}", (1, 3, 224, 224), body, input_name="input"),
                "train_val.prototxt": train_val(
                    f"ResNet-{depth}", ilsvrc12((32, 25), 224, **IMAGE_MEAN), body, top5=True
                ),
                "solver.prototxt": solver(
                    name,
                    iter_size=8,  # batches of 256, as in the paper
                    test_iter=[2000],
                    test_interval=5000,
                    test_initialization=False,
                    base_lr=0.1,
                    lr_policy="multistep",
                    gamma=0.1,
                    stepvalue=[150000, 300000, 450000],
                    max_iter=600000,
                    weight_decay=0.0001,
                    display=20,
                    average_loss=20,
                    snapshot=10000,
                ),
            },
        )


def resnet(n: NetSpec, data: Top, depth: int) -> Top:
    top = parts.ave_pool(n, "pool5", stages(n, data, depth), 7, 1)
    return parts.inner(n, "fc1000", top, 1000, weight_filler=parts.MSRA)


def stages(n: NetSpec, data: Top, depth: int, spread: bool = False) -> Top:
    """The net up to its last stage; with ``spread`` that keeps the size, and its kernels see as much by dilation."""
    # the published ResNet-50 alone has a bias here
    top = normalised(n, "conv1", "_conv1", data, 64, 7, pad=3, stride=2, bias_term=depth == 50)
    top = parts.rectify(n, "conv1_relu", top)
    top = parts.max_pool(n, "pool1", top, 3, 2)
    for stage, (blocks, width) in enumerate(zip(DEPTHS[depth], (64, 128, 256, 512), strict=True), 2):
        for block in range(blocks):
            # stages of many blocks are numbered: a, b1, b2, ...
            numbered = depth > 50 and stage in (3, 4)
            letter = f"b{block}" if numbered and block else ascii_lowercase[block]
            dilated = spread and stage == 5
            stride = 2 if stage > 2 and block == 0 and not dilated else 1
            top = bottleneck(n, f"{stage}{letter}", top, width, stride, project=block == 0, dilated=dilated)
    return top


def bottleneck(
    n: NetSpec, name: str, bottom: Top, width: int, stride: int, project: bool, dilated: bool = False
) -> Top:
    """1x1, 3x3 and 1x1 convolutions, added to their input, or to a 1x1 convolution of it where the shape changes."""

    def branch(part: str, bottom: Top, num_output: int, kernel_size: int, **settings: Any) -> Top:
        return normalised(n, f"res{name}_{part}", f"{name}_{part}", bottom, num_output, kernel_size, **settings)

    def relu(part: str, top: Top) -> Top:
        return parts.rectify(n, f"res{name}{part}_relu", top)

    kept = branch("branch1", bottom, 4 * width, 1, stride=stride) if project else bottom
    top = relu("_branch2a", branch("branch2a", bottom, width, 1, stride=stride))
    around = {"pad": 2, "dilation": 2} if dilated else {"pad": 1}
    top = relu("_branch2b", branch("branch2b", top, width, 3, **around))
    n[f"res{name}"] = L.Eltwise(kept, branch("branch2c", top, 4 * width, 1))
    return relu("", n[f"res{name}"])


def normalised(
    n: NetSpec,
    name: str,
    suffix: str,
    bottom: Top,
    num_output: int,
    kernel_size: int,
    bias_term: bool = False,
    **settings: Any,
) -> Top:
    """A convolution, its batch normalisation and the scale that is learnt."""
    if not bias_term:
        settings["bias_term"] = False
    top = parts.conv(n, name, bottom, num_output, kernel_size, weight_filler=parts.MSRA, **settings)
    n[f"bn{suffix}"] = L.BatchNorm(top, in_place=True)
    n[f"scale{suffix}"] = L.Scale(n[f"bn{suffix}"], bias_term=True, in_place=True)
    return n[f"scale{suffix}"]
