"""``caffecli doctor``."""

from __future__ import annotations

import json

import click

from caffecli.cli.options import caffe_command


@caffe_command("doctor", quiet=True)
@click.option("--json", "as_json", is_flag=True, help="Write JSON, for a report of a fault.")
def doctor(as_json: bool) -> None:
    """Tell what is installed, what is missing for what, and what this machine has; train LeNet for a second.

    The exit code is 0 whatever is missing.
    """
    from caffecli.tools import doctor as tool

    facts = tool.doctor()
    click.echo(json.dumps(facts, indent=2) if as_json else tool.to_text(facts))
