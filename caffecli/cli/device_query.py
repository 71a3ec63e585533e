"""``caffecli device_query``."""

from __future__ import annotations

from caffecli.cli.options import caffe_command, gpu_option


@caffe_command("device_query", brew=True)
@gpu_option
def device_query(gpu: str | None) -> None:
    """Show the CUDA devices: those that --gpu names, or all."""
    from caffecli.tools import device_query as tool

    tool.device_query(gpu)
