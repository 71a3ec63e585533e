"""What pyproject.toml cannot say: an installation has a file caffecli.pth, see caffecli/checkouts.py."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

START = (
    "import sys; exec('try: import caffecli\\nexcept ImportError: pass')\n"  # Python reads lines that begin with import
)


class BuildWithStart(build_py):
    def run(self) -> None:
        super().run()
        # of an editable installation too, into which setuptools copies no modules
        folder = self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        Path(folder, "caffecli.pth").write_text(START)


setup(cmdclass={"build_py": BuildWithStart})
