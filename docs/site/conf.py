"""Sphinx' settings for the site: ``make site``. What the site adds to the pages is in scripts/site_pages.py."""

import sys
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).parents[2]))

from pygments.lexer import RegexLexer, words
from pygments.token import Comment, Keyword, Name, Number, Punctuation, String, Text

from caffecli import __version__
from scripts import site_pages as site

project = "caffecli"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = site.INDEX
include_patterns = [
    "docs/**",
    "models/*/readme.md",
    "models/readme.md",
    "data/*/readme.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = ["docs/site/conf.py"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4  # links to headings, as GitHub makes them
default_role = "literal"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
autodoc_member_order = "bysource"
html_theme = "furo"
html_title = "caffecli"
html_favicon = "static/icon.svg"
html_show_copyright = False
html_copy_source = False
html_show_search_summary = False  # it would be fetched, which browsers refuse for files
html_additional_pages = {"index": "to_index.html"}
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["site.css"]


class Prototxt(RegexLexer):
    """The colours of a prototxt."""

    name = "prototxt"
    tokens: ClassVar = {
        "root": [
            (r"#.*", Comment),
            (r"\"[^\"\n]*\"|'[^'\n]*'", String),
            (r"\w+(?=\s*[:{])", Name.Tag),
            (words(("true", "false"), suffix=r"\b"), Keyword.Constant),
            (r"[-+]?[\d.]+(e[-+]?\d+)?\b", Number),
            (r"\w+", Name.Constant),
            (r"[{}:,;<>\[\]]", Punctuation),
            (r"\s+|.", Text),
        ]
    }


def setup(app: Any) -> None:
    def complete(_: Any, page: str, source: list[str]) -> None:
        source[0] = site.completed(page, source[0])

    def docstring(_app: Any, _what: str, _name: str, _value: Any, _options: Any, lines: list[str]) -> None:
        site.as_rst(lines)

    app.add_lexer("prototxt", Prototxt)
    app.connect("source-read", complete)
    app.connect("autodoc-process-docstring", docstring)
