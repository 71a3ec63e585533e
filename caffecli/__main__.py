"""``python -m caffecli``."""

from caffecli.cli.main import main

if __name__ == "__main__":
    main(prog_name="python -m caffecli")
