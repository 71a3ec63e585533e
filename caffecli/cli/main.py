"""``caffecli`` and Caffe's own tool names: which commands there are, and how an error ends a program.

Exit codes: 0 done; 1 failed, with one line ``Error: ...`` on stderr; 2 wrong use; 130 interrupted. ``--debug`` adds the
traceback; that of a user's own layer is always shown. The help comes from the table below, so that ``--help`` imports
neither PyTorch nor the commands.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
import traceback
from typing import NoReturn

import click

from caffecli import __version__, host
from caffecli.errors import CaffeError, PythonLayerError, words_of
from caffecli.wording import did_you_mean

#: group -> name -> short help; the command is the attribute of this name of the module of this name in ``caffecli.cli``
GROUPS = {
    "Train and score": {
        "new": "Begin with pictures of your own: databases, nets, a solver.",
        "train": "Train a net, or go on with a run.",
        "test": "Score a trained net.",
        "time": "Measure how long each layer takes.",
        "parse_log": "Write a training log's figures to tables.",
        "plot": "Draw the losses and scores of trainings.",
        "plot_log": "Draw the curves of training logs, as Caffe's script.",
        "report": "Make a page about a training.",
    },
    "Use a trained net": {
        "classify": "Tell the classes of pictures.",
        "detect": "Find the objects in pictures and videos, or classify windows.",
        "score_detections": "Score the boxes that a detector found.",
        "extract_features": "Write blobs of a trained net, record by record.",
    },
    "Look at a net": {
        "summarize": "Sum up a net: shapes, parameters, multiply-adds, memory.",
        "draw_net": "Draw a net.",
        "visualize": "Draw what a net has learnt.",
    },
    "Make data": {
        "convert_imageset": "Put pictures into a database.",
        "convert_annoset": "Put pictures with boxes into a database.",
        "create_label_map": "Number the classes of boxes.",
        "get_image_size": "List the sizes of pictures.",
        "resize_images": "Bring pictures to one size.",
        "compute_image_mean": "Compute the mean picture of a database.",
        "convert_mnist_data": "Put MNIST into a database.",
        "convert_cifar_data": "Put CIFAR-10 into databases.",
        "convert_mnist_siamese_data": "Put pairs of MNIST's pictures into a database.",
    },
    "Bring nets in and out": {
        "export": "Write a net for PyTorch or ONNX.",
        "import": "Read a net from PyTorch.",
        "merge_bn": "Fold BatchNorm and Scale into the layer before.",
        "convert_weights": "Write weights in another form.",
        "convert_mean": "Write a mean picture for NumPy, or for Caffe.",
        "download_model": "Download a model's published weights.",
        "upgrade_net_proto_text": "Bring an old net prototxt up to date.",
        "upgrade_net_proto_binary": "Bring old weights up to date.",
        "upgrade_solver_proto_text": "Bring an old solver up to date.",
    },
    "This machine": {
        "doctor": "Tell what is installed, what is missing, and how fast it trains.",
        "device_query": "Show the CUDA devices.",
        "completion": "Write the script by which a shell completes commands.",
        "link_tools": "Give a Caffe checkout the programs its scripts call.",
    },
}
#: name -> short help
COMMANDS = {name: words for group in GROUPS.values() for name, words in group.items()}
#: the commands that one needs first, as they are typed
_FIRST = {
    "new": "caffecli new FOLDER",
    "train": "caffecli train --solver solver.prototxt",
    "test": "caffecli test --model train_val.prototxt --weights snapshot.caffemodel",
    "classify": "caffecli classify PICTURES --model deploy.prototxt --weights snapshot.caffemodel",
    "summarize": "caffecli summarize train_val.prototxt",
}
#: the modules that are called otherwise
_MODULES = {"import": "import_", **dict.fromkeys((name for name in COMMANDS if name.startswith("upgrade_")), "upgrade")}


class CommandTable(click.Group):
    """The commands of ``COMMANDS``, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = cmd_name.replace("-", "_")
        if name not in COMMANDS:
            return None
        return load_command(name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))  # one column of names in all groups
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), words) for name, words in group.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = ["--version" if arg == "-version" else arg for arg in args[:1]] + args[1:]
        if args[:1] == ["help"]:
            args = [*args[1:2], "--help"]
        if not args and not ctx.resilient_parsing:
            click.echo(greeting())
            ctx.exit()
        return super().parse_args(ctx, _command_first(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name.replace("-", "_") in COMMANDS or name.startswith("-"):
            return super().resolve_command(ctx, args)
        hint = did_you_mean(name, COMMANDS, f"there are {', '.join(COMMANDS)}")
        raise click.UsageError(f"No command {name!r}{hint}", ctx)


def greeting() -> str:
    """What ``caffecli`` alone says: the commands that one needs first, and where the rest is told."""
    lines = [f"caffecli {__version__}: Caffe's tools on PyTorch. What one needs first:", ""]
    for name, typed in _FIRST.items():
        lines += [f"  {COMMANDS[name]}", f"    {typed}"]
    rest = "caffecli --help lists all commands, caffecli help COMMAND tells of one."
    return "\n".join([*lines, "", rest])


def load_command(name: str) -> click.Command:
    """The command of this name, one of ``COMMANDS``."""
    module = importlib.import_module(f"caffecli.cli.{_MODULES.get(name, name)}")
    command: click.Command = getattr(module, "import_" if name == "import" else name)
    return command


def _command_first(args: list[str]) -> list[str]:
    """Move the command first: Caffe also takes it after the flags (``caffe -solver s.prototxt train``), Click does not.

    A command's name right after a flag may be the flag's value: it is taken for the command only if there is no other.
    """
    if not args or not args[0].startswith("-"):
        return args
    places = [place for place, arg in enumerate(args) if arg.replace("-", "_") in COMMANDS]
    if not places:
        return args
    place = next((p for p in places if not args[p - 1].startswith("-") or "=" in args[p - 1]), places[0])
    return [args[place], *args[:place], *args[place + 1 :]]


@click.group(cls=CommandTable, context_settings={"help_option_names": ["--help", "-h"]})
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="caffecli")
def cli() -> None:
    """Caffe's tools on PyTorch: train, test and time nets; make their databases.

    Flags are read in Caffe's spellings: --solver x, --solver=x, -solver x, -solver=x. "caffecli help COMMAND" tells
    what a command does, and its flags.
    """


def main(prog_name: str | None = None) -> NoReturn:
    """The program ``caffecli``, also called ``caffe``."""
    run(cli, prog_name)


def run(command: click.Command, prog_name: str | None = None) -> NoReturn:
    """Run a command with the arguments of this process, and exit."""
    debug = "--debug" in sys.argv or "-debug" in sys.argv
    _open_streams()
    host.prepare()
    try:
        code = command.main(prog_name=prog_name, standalone_mode=False)
        sys.stdout.flush()
    except Exception as error:
        if debug and not isinstance(error, click.ClickException | click.Abort):
            traceback.print_exc()
        code = _report(error)
    sys.exit(code if isinstance(code, int) else 0)


def _open_streams() -> None:
    """Give closed standard streams the null device:
    a file opened under their number would get what is written to them.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115, PTH123 - open to the end


def _report(error: Exception) -> int:
    """Print the error to stderr; returns the exit code."""
    if isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and error.errno == errno.EPIPE):
        return _close_pipes()
    error = _of_a_layer(error)
    try:
        if isinstance(error, click.Abort):  # Click's word for KeyboardInterrupt
            click.echo("Interrupted", err=True)
            return 130
        if isinstance(error, click.ClickException):
            error.show()
            return error.exit_code
        if isinstance(error, PythonLayerError) and error.__cause__ is not None:
            click.echo("".join(traceback.format_exception(error.__cause__)), err=True, nl=False)
        click.echo(f"Error: {_one_line(error)}", err=True)
        return 1
    except BrokenPipeError:
        return _close_pipes()
    except OSError:  # stderr itself cannot be written
        return 1


def _of_a_layer(error: Exception) -> Exception:
    """The error as one of the layer of a user's own in whose code it was raised, if it was."""
    outside = sys.modules.get("caffecli.layers.outside")
    if outside is None or isinstance(error, CaffeError | click.ClickException | click.Abort):
        return error
    own: PythonLayerError | None = outside.at_fault(error)
    if own is None:
        return error
    own.__cause__ = error
    return own


def _one_line(error: Exception) -> str:
    """An error as one line for the user."""
    if isinstance(error, CaffeError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        names = [repr(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        return ": ".join([*names, error.strerror])
    text = " ".join(words_of(error).split())
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!a} cannot be spelled in this locale; set LC_ALL=C.UTF-8"
    if isinstance(error, ValueError) and text == "embedded null byte":
        return "a path holds a zero byte; take it out"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return "out of memory; free some, or lower batch_size where a net runs" + (f" ({text})" if text else "")
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"internal: {said}; run again with --debug for the traceback"


def _close_pipes() -> int:
    """The reader of our output has gone: close the streams,
    so that Python does not fail again when it flushes them at exit.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return 1  # as Click does


def extract_features() -> NoReturn:
    """The program ``extract_features``."""
    run(load_command("extract_features"))


def convert_imageset() -> NoReturn:
    """The program ``convert_imageset``."""
    run(load_command("convert_imageset"))


def convert_annoset() -> NoReturn:
    """The program ``convert_annoset``."""
    run(load_command("convert_annoset"))


def create_label_map() -> NoReturn:
    """The program ``create_label_map``."""
    run(load_command("create_label_map"))


def get_image_size() -> NoReturn:
    """The program ``get_image_size``."""
    run(load_command("get_image_size"))


def compute_image_mean() -> NoReturn:
    """The program ``compute_image_mean``."""
    run(load_command("compute_image_mean"))


def convert_mnist_data() -> NoReturn:
    """The program ``convert_mnist_data``."""
    run(load_command("convert_mnist_data"))


def convert_cifar_data() -> NoReturn:
    """The program ``convert_cifar_data``."""
    run(load_command("convert_cifar_data"))


def convert_mnist_siamese_data() -> NoReturn:
    """The program ``convert_mnist_siamese_data``."""
    run(load_command("convert_mnist_siamese_data"))


def upgrade_net_proto_text() -> NoReturn:
    """The program ``upgrade_net_proto_text``."""
    run(load_command("upgrade_net_proto_text"))


def upgrade_net_proto_binary() -> NoReturn:
    """The program ``upgrade_net_proto_binary``."""
    run(load_command("upgrade_net_proto_binary"))


def upgrade_solver_proto_text() -> NoReturn:
    """The program ``upgrade_solver_proto_text``."""
    run(load_command("upgrade_solver_proto_text"))
