"""Modules as people write them, for the tests of import."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class AlexNet(nn.Module):
    """Of torchvision's shape, on small pictures."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(16, 24, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((3, 3))
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(216, 32), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(32, 10)
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def vgg():
    layers: list[nn.Module] = []
    channels = 3
    for width in (8, None, 12, 12, None):
        if width is None:
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(12 * 5 * 5, 10), nn.LogSoftmax(1))


class BasicBlock(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            if stride != 1
            else None
        )

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(8, 8, 1), BasicBlock(8, 8, 1))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layer2(self.layer1(x))), 1))


class InvertedResidual(nn.Module):
    """MobileNet v2's block."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Sequential(nn.Conv2d(6, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(inplace=True)),
            nn.Sequential(
                nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6(inplace=True)
            ),
            nn.Conv2d(24, 6, 1, bias=False),
            nn.BatchNorm2d(6),
        )

    def forward(self, x):
        return (x + self.conv(5 * x)).mean([2, 3])


class Fire(nn.Module):
    def __init__(self):
        super().__init__()
        self.squeeze = nn.Conv2d(6, 4, 1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(4, 5, 1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(4, 7, 3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.squeeze_activation(self.squeeze(x))
        x = torch.cat([self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))], 1)
        return F.max_pool2d(x, 3, 2, ceil_mode=True)


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch1x1 = nn.Conv2d(6, 3, 1)
        self.branch7x1 = nn.Conv2d(6, 4, (1, 7), padding=(0, 3))
        self.branch1x7 = nn.Conv2d(4, 4, (7, 1), padding=(3, 0))
        self.branch_pool = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        pooled = F.avg_pool2d(x, kernel_size=3, stride=1, padding=1)
        branches = [self.branch1x1(x), self.branch1x7(F.relu(self.branch7x1(x))), self.branch_pool(pooled)]
        return torch.cat([F.relu(branch) for branch in branches], 1)


class DenseBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3))

    def forward(self, x):
        features = [x]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        return F.avg_pool2d(torch.cat(features, 1), 2, 2)


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Linear(6, 3)
        self.up = nn.Linear(3, 6)

    def forward(self, x):
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class Fully(nn.Module):
    """Fully convolutional: enlarged, cut and added to what was before."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(6, 8, 3, 2, 1)
        self.up = nn.ConvTranspose2d(8, 6, 4, 2, groups=2)
        self.more = nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1, bias=False)

    def forward(self, x):
        big = self.up(torch.tanh(self.down(x)))[:, :, 1 : 1 + x.shape[2], 1 : 1 + x.shape[3]]
        return self.more(big + x), F.interpolate(big, scale_factor=3)


class Shuffle(nn.Module):
    """ShuffleNet v2's way: split, convolve half of it, join, shuffle."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.shuffle = nn.ChannelShuffle(2)
        self.enlarge = nn.PixelShuffle(2)

    def forward(self, x):
        left, right = x.chunk(2, 1)
        x = self.shuffle(torch.cat([left, self.conv(right)], 1))
        return self.enlarge(F.pad(x[:, :4], (1, 2, 0, 1)))


class Normalizing(nn.Module):
    def __init__(self):
        super().__init__()
        self.lrn = nn.LocalResponseNorm(3, alpha=0.5, beta=0.6, k=2)
        self.group = nn.GroupNorm(3, 6)
        self.instance = nn.InstanceNorm2d(6)

    def forward(self, x):
        return self.instance(self.lrn(x)), self.group(x) / 3, F.normalize(x)


#: the module, and the shape of its input
MODULES = {
    "AlexNet": (AlexNet, (2, 3, 64, 64)),
    "VGG": (vgg, (2, 3, 20, 20)),
    "ResNet": (ResNet, (2, 3, 48, 48)),
    "MobileNet v2": (InvertedResidual, (2, 6, 9, 8)),
    "SqueezeNet": (Fire, (2, 6, 9, 8)),
    "Inception": (Inception, (2, 6, 9, 8)),
    "DenseNet": (DenseBlock, (2, 6, 9, 8)),
    "squeeze and excite": (SqueezeExcite, (2, 6, 9, 8)),
    "fully convolutional": (Fully, (2, 6, 9, 8)),
    "ShuffleNet": (Shuffle, (2, 6, 9, 8)),
    "normalizing": (Normalizing, (2, 6, 9, 8)),
}

#: a number for each channel
CHANNELS = torch.arange(1.0, 7).view(6, 1, 1)


#: single operations on a value of (2, 6, 9, 8)
def normalized(x):
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


def channels_last(x):
    """What ConvNeXt and TensorFlow's models do while the channels are last."""
    x = F.layer_norm(x, (6,), torch.arange(6.0), torch.ones(6))
    x = F.gelu(F.linear(x, torch.arange(24.0).view(4, 6) / 10, torch.ones(4)))
    x = torch.cat([x, x.softmax(-1)], -1) + torch.arange(8.0)
    return x - x.mean(-1, keepdim=True)


OPERATIONS = {
    "abs": torch.abs,
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, (3, 4)),
    "adaptive_avg_pool2d uneven": lambda x: F.adaptive_avg_pool2d(x, (5, 3)),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, (3, 2)),
    "add": lambda x: 2 + torch.add(x, 3, alpha=2) + x.exp(),
    "amax": lambda x: x.amax((2, 3)),
    "amax of the rows": lambda x: x.amax(2),
    "amin": lambda x: x.amin((2, 3), keepdim=True),
    "argmax": lambda x: x.argmax(1).float(),
    "argmin": lambda x: x.argmin(2).float(),
    "argmax keepdim": lambda x: x.argmax(-1, keepdim=True).float(),
    "avg_pool1d": lambda x: F.avg_pool1d(x[:, :, 0], 3, 2, 1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "avg_pool2d ceil": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "avg_pool2d divisor": lambda x: F.avg_pool2d(x, (2, 3), 2, divisor_override=5),
    "avg_pool2d inside": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "by hand: shuffle": lambda x: x.view(2, 2, 3, 9, 8).transpose(1, 2).reshape(2, 6, 9, 8),
    "by hand: squeeze": lambda x: x[:, :, :8].reshape(2, 6, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 24, 4, 4),
    "by hand: gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "by hand: layer_norm": lambda x: normalized(x - x.mean(-1, keepdim=True)),
    "channels last": lambda x: channels_last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "channels last, pooled": lambda x: (x.permute(0, 2, 3, 1) * CHANNELS.view(6)).relu().mean((1, 2)),
    "channels last, both": lambda x: x.movedim(1, 3).permute(0, 3, 1, 2) + x.permute(0, 3, 2, 1).permute(0, 3, 2, 1),
    "by hand: MVN": lambda x: (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True, unbiased=False) + 1e-3),
    "by hand: MVN of all": lambda x: (x - x.mean((1, 2, 3), True)) / x.var((1, 2, 3), False, True).sqrt(),
    "cat": lambda x: torch.cat([x, -x, x], 2),
    "clamp": lambda x: x.clamp(-0.5, 0.75),
    "clamp max": lambda x: x.clamp(max=0.5),
    "clamp min": lambda x: x.clamp(min=0.25),
    "constants": lambda x: (x + torch.arange(8.0)) * torch.arange(9.0)[:, None] - torch.ones(6, 1, 1) / x.exp(),
    "constants around": lambda x: CHANNELS + CHANNELS * x - (x * CHANNELS - CHANNELS) + (CHANNELS - CHANNELS * x),
    "div": lambda x: x / (1 + x.abs()),
    "elu": lambda x: F.elu(x, 0.5),
    "exp2": lambda x: torch.pow(2, x),
    "expand": lambda x: x + x.mean(1, keepdim=True) + x.mean((2, 3), keepdim=True),
    "erf": lambda x: torch.erf(2 * x),
    "every second": lambda x: x[:, :, 1::2, ::3],
    "every second channel": lambda x: x[:, ::2],
    "flip": lambda x: x.flip(1, 3),
    "gelu of erf": lambda x: F.gelu(3 * x),
    "index_select": lambda x: x.index_select(1, torch.tensor([2, 0, 1, 5])).index_select(2, torch.tensor([4, 4, 0, 1])),
    "interpolate bicubic": lambda x: F.interpolate(x, scale_factor=(2, 1.5), mode="bicubic"),
    "interpolate bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "interpolate bilinear to corners": lambda x: F.interpolate(x, (5, 12), mode="bilinear", align_corners=True),
    "interpolate linear": lambda x: F.interpolate(x[:, :, 0], 11, mode="linear"),
    "interpolate nearest exact": lambda x: F.interpolate(x, (13, 7), mode="nearest-exact"),
    "interpolate nearest": lambda x: F.interpolate(x, (10, 12)),
    "interpolate smooth": lambda x: F.interpolate(x, (4, 5), mode="bilinear", antialias=True),
    "pad circular": lambda x: F.pad(x, (1, 2, 0, 1), mode="circular"),
    "pad reflect": lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
    "pad replicate": lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate"),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "flatten": lambda x: x.flatten(2),
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "hardsigmoid": lambda x: F.hardsigmoid(4 * x),
    "hardswish": lambda x: F.hardswish(4 * x),
    "hardtanh": F.hardtanh,
    "layer_norm": lambda x: F.layer_norm(x, (9, 8), torch.arange(72.0).view(9, 8)),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "log": lambda x: x.abs().add(0.5).log(),
    "log_softmax": lambda x: F.log_softmax(x, 2),
    "logsigmoid": F.logsigmoid,
    "max": lambda x: (x.max(1)[0], x.max(-1, keepdim=True)[1].float()),
    "max and places": lambda x: tuple(x.max(1)),
    "max_pool1d": lambda x: F.max_pool1d(x[:, 0], 2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "max_pool2d ceil": lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True),
    "max_pool2d places": lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)[1].float(),
    "max_pool2d last": lambda x: F.max_pool2d(x, (3, 2), 2, (1, 0)),
    "max_pool2d by steps": lambda x: F.max_pool2d(x, (4, 1), (1, 3), (2, 0)),
    "maximum": lambda x: torch.maximum(x, x.tanh()),
    "mean": lambda x: x.mean((1, 2, 3)),
    "mean taken off": lambda x: x - x.mean((2, 3), keepdim=True),
    "mean of the last": lambda x: x.mean(-1),
    "min": lambda x: x.min(2)[0],
    "minimum": lambda x: torch.minimum(x, -x),
    "mish": F.mish,
    "l2 of vectors": lambda x: F.normalize(x.mean((2, 3))),
    "mul": lambda x: x * x.sigmoid() - 0.5 * x,
    "pad": lambda x: F.pad(x, (2, 1, 0, 3)),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x[:, :, :8], 2),
    "pow": lambda x: (1 - 2 * x) ** 2,
    "prelu": lambda x: F.prelu(x, torch.arange(6) / 6),
    "prelu shared": lambda x: F.prelu(x, torch.tensor([0.3])),
    "relu6": lambda x: F.relu6(8 * x),
    "reshape": lambda x: x.reshape(2, 3, -1, 4),
    "rsqrt": lambda x: (x * x + 1).rsqrt(),
    "select": lambda x: x[:, 2],
    "selu": F.selu,
    "silu": F.silu,
    "slice": lambda x: x[:, 1:4, :, -3:],
    "softmax": lambda x: x.softmax(1),
    "softplus": lambda x: F.softplus(x, 2),
    "softsign": F.softsign,
    "split": lambda x: x.split([2, 3, 1], 1)[1],
    "stack": lambda x: torch.stack([x, 2 * x], 1),
    "sub": lambda x: torch.sub(x, x.tanh(), alpha=3),
    "sum": lambda x: x.sum((2, 3)),
    "sum of channels": lambda x: x.sum(1),
    "sum of the last": lambda x: x.sum(-1),
    "topk": lambda x: tuple(x.topk(3, 1)),
    "topk smallest": lambda x: x.topk(2, 3, largest=False)[0],
    "trivial permute": lambda x: x.mean((2, 3), keepdim=True).permute(0, 2, 3, 1),
    "threshold": lambda x: (x > 0.5).float(),
    "unbind": lambda x: x.unbind(1)[3],
    "unsqueeze": lambda x: x.unsqueeze(1),
    "upsample": lambda x: F.interpolate(x, scale_factor=2),
}


class Wrapped(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def trained(module):
    """``module`` in evaluation, with weights and statistics that all matter."""
    generator = torch.Generator().manual_seed(3)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            layer.weight.data.uniform_(0.5, 2, generator=generator)
            layer.bias.data.uniform_(-1, 1, generator=generator)
    return module.eval()
