"""SqueezeNet 1.0 and 1.1 (F. Iandola and others, 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from scripts.zoo import parts
from scripts.zoo.imagenet import CHANNEL_MEAN, ilsvrc12
from scripts.zoo.model import Model, deploy, solver, train_val

conv = partial(parts.conv, weight_filler=parts.XAVIER, param=[])
#: Outputs of each fire module's squeezing convolution; both of its expanding ones have four times as many.
FIRES = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}
#: Fire modules followed by a pooling.
POOLED = {"1.0": (4, 8), "1.1": (3, 5)}


def models() -> Iterator[Model]:
    for version in POOLED:
        name = f"squeezenet_v{version}"
        body = partial(squeezenet, version=version)
        sources = ilsvrc12((32, 25), 227, mirror=False, **CHANNEL_MEAN)
        yield Model(
            name,
            f"SqueezeNet {version} on ILSVRC 2012.",
            {
                "deploy.prototxt": deploy(
                    "", (10, 3, 227, 227), body, input_name="input" if version == "1.0" else "data"
                ),
                "train_val.prototxt": train_val("", sources, body, top5=True),
                "solver.prototxt": solver(
                    name,
                    iter_size=16,  # batches of 512
                    test_iter=[2000],
                    test_interval=1000,
                    test_initialization=False,
                    base_lr=0.04,
                    lr_policy="poly",
                    power=1,
                    max_iter=170000,
                    weight_decay=0.0002,
                    display=40,
                    average_loss=40,
                    snapshot=1000,
                    random_seed=42,
                ),
            },
        )


def squeezenet(n: NetSpec, data: Top, version: str) -> Top:
    first = (96, 7) if version == "1.0" else (64, 3)
    top = conv(n, "conv1", data, *first, stride=2, relu="relu_conv1")
    top = parts.max_pool(n, "pool1", top, 3, 2)
    for number, squeezed in FIRES.items():
        top = fire(n, f"fire{number}", top, squeezed)
        if number in POOLED[version]:
            top = parts.max_pool(n, f"pool{number}", top, 3, 2)
    top = parts.dropout(n, "drop9", top)
    around = {"pad": 1} if version == "1.0" else {}
    top = parts.conv(
        n, "conv10", top, 1000, 1, relu="relu_conv10", weight_filler=parts.gaussian(0.01), param=[], **around
    )
    return parts.ave_pool(n, "pool10", top)


def fire(n: NetSpec, name: str, bottom: Top, squeezed: int) -> Top:
    """A 1x1 convolution, then 1x1 and 3x3 convolutions of it side by side."""

    def branch(part: str, bottom: Top, num_output: int, kernel_size: int) -> Top:
        around = {"pad": 1} if kernel_size == 3 else {}
        return conv(n, f"{name}/{part}", bottom, num_output, kernel_size, relu=f"{name}/relu_{part}", **around)

    top = branch("squeeze1x1", bottom, squeezed, 1)
    tops = [branch("expand1x1", top, 4 * squeezed, 1), branch("expand3x3", top, 4 * squeezed, 3)]
    n[f"{name}/concat"] = L.Concat(*tops)
    return n[f"{name}/concat"]
