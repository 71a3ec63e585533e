"""Every model, by its name."""

from __future__ import annotations

from scripts.zoo import googlenet, mobilenet, resnet, squeezenet

MODELS = {model.name: model for family in (googlenet, resnet, squeezenet, mobilenet) for model in family.models()}
