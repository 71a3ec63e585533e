"""The page: one file that loads nothing, from the sections and ``page.html``, ``page.css``, ``page.js`` beside this."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from importlib import resources
from string import Template

from caffecli import __version__
from caffecli.errors import CaffeError
from caffecli.tools.report import charts, markup
from caffecli.tools.report.material import Inapplicable, Report, left_out
from caffecli.tools.report.sections import SECTIONS

#: how often a page that follows a run asks whether there is something new
_EVERY = 3000


def make(report: Report, version: str = "") -> str:
    """The HTML of the page. ``version``: of a page that follows a run, another one for each state.

    Its policy (CSP) lets the browser load nothing and run only the scripts that are put in here, known by their hashes.
    """
    plotly = charts.script()
    report.pictures_only = plotly is None
    scripts = [part for part in (plotly, _file("page.js")) if part is not None]
    made = [(key, title, _section(key, title, function, report)) for key, title, function in SECTIONS]
    parts = [part for _, _, part in made if part]
    contents = "".join(f'<li><a href="#{key}">{markup.escape(title)}</a></li>' for key, title, part in made if part)
    names = ", ".join(run.name for run in report.runs)
    following = f' data-follow="{_EVERY}" data-version="{markup.escape(version)}"' if version else ""
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    connect = " connect-src 'self';" if version else ""
    return Template(_file("page.html")).substitute(
        title=f"Training of {markup.escape(names)}",
        subtitle=markup.escape(", ".join(str(path) for path in report.options.inputs)),
        style=_file("page.css"),
        policy=f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline';{connect} script-src {hashes}",
        version=__version__,
        made=time.strftime("%Y-%m-%d %H:%M:%S"),
        following=following,
        contents=contents,
        sections="\n".join(parts),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _section(key: str, title: str, function: Callable[[Report], str], report: Report) -> str:
    """Empty where the section is not for nets of this kind."""
    try:
        content = function(report)
    except Inapplicable:
        return ""
    except CaffeError as error:
        content = left_out(error)
    known = hashlib.sha256(content.encode()).hexdigest()[:16]
    return (
        f'<section id="{key}" aria-labelledby="{key}-title" data-content="{known}">'
        f'<h2 id="{key}-title">{markup.escape(title)}</h2>{content}</section>'
    )


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
