"""Caffe's command-line training toolchain on PyTorch.

The rooms, from the ground up: ``errors``, ``logs``, ``proto``; ``spec`` and ``formats``; ``sources``; ``layers``; ``net``;
``solver``; ``cli``. Each imports only from those before it. CONTRIBUTING.md has the plan.
"""

__version__ = "0.1.0"
