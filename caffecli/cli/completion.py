"""``caffecli completion``."""

from __future__ import annotations

import click

from caffecli.cli.options import caffe_command


@caffe_command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Write the script by which a shell completes commands, flags and files.

    \b
      bash: echo 'eval "$(caffecli completion bash)"' >> ~/.bashrc
      zsh:  echo 'eval "$(caffecli completion zsh)"' >> ~/.zshrc
      fish: caffecli completion fish > ~/.config/fish/completions/caffecli.fish
    """
    from caffecli.tools import completion as tool

    click.echo(tool.script(shell))
