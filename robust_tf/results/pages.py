"""Parts of a report as one HTML page and as Markdown, whatever they say."""

import base64
import dataclasses
import html
import re
import string
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

_PAGE = string.Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


@dataclasses.dataclass(frozen=True, eq=False)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        notes: paragraphs.
        table: a table of texts; None for no table.
        figure: a PNG file; None for no figure.
        caption: the figure's caption.
        folded: whether the table is hidden until the reader opens it.
        warning: whether the notes say what is missing.
    """

    title: str = ""
    notes: tuple[str, ...] = ()
    table: pd.DataFrame | None = None
    figure: Path | None = None
    caption: str = ""
    folded: bool = False
    warning: bool = False


def page(title: str, sections: Sequence[Section]) -> str:
    """Sections as one HTML file that includes its figures."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        if section.title and not section.folded:
            parts.append(f"<h2>{html.escape(section.title)}</h2>")
        css = ' class="note"' if section.warning else ""
        parts += [f"<p{css}>{html.escape(note)}</p>" for note in section.notes]
        if section.figure is not None:
            parts.append(
                f'<figure><img alt="{html.escape(section.caption)}" '
                f'src="data:image/png;base64,{_base64(section.figure)}">'
                f"<figcaption>{html.escape(section.caption)}</figcaption></figure>"
            )
        if section.table is not None and len(section.table):
            table = f'<div class="wide">{_html_table(section.table)}</div>'
            if section.folded:
                summary = f"<summary>{html.escape(section.title)}</summary>"
                table = f"<details>{summary}{table}</details>"
            parts.append(table)
    return _PAGE.substitute(title=html.escape(title), body="\n".join(parts))


def _html_table(table: pd.DataFrame) -> str:
    def row(cells: list[str], tag: str) -> str:
        def cell(text: str) -> str:
            css = ' class="text"' if len(text) > 30 and tag == "td" else ""
            return f"<{tag}{css}>{html.escape(text)}</{tag}>"

        return f"<tr>{''.join(map(cell, cells))}</tr>"

    body = "\n".join(row(list(map(str, cells)), "td") for cells in table.itertuples(index=False))
    head = row(list(table.columns), "th")
    css = ' class="pairs"' if table.shape[1] == 2 else ""  # whose values may be long
    return f"<table{css}>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def markdown(title: str, sections: Sequence[Section], folder: Path | None = None) -> str:
    """Sections as Markdown; it shows each text as it is.

    Args:
        title: the heading.
        sections: the parts.
        folder: where the file is to be, with its figures in it; None to leave these out.
    """
    parts = [f"# {_escaped(title)}"]
    for section in sections:
        if section.title:
            parts.append(f"{'###' if section.folded else '##'} {_escaped(section.title)}")
        parts += [_paragraph(text) for text in section.notes if text]
        if folder is not None and section.figure is not None:
            place = section.figure.relative_to(folder).as_posix()
            parts.append(f"![{_escaped(section.title)}]({place})")
        if section.caption:
            parts.append(_paragraph(section.caption))
        if section.table is not None and len(section.table):
            table = section.table.astype(str)
            rows = [list(map(str, table.columns)), *table.to_numpy().tolist()]
            lines = [[_escaped(cell) for cell in row] for row in rows]
            lines.insert(1, ["---"] * table.shape[1])
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    """A text in one line, in which nothing is a mark of Markdown, HTML or a formula."""
    text = re.sub(r"[\\`*\[\]<>|$~&#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    return " ".join(text.splitlines())


def _paragraph(text: str) -> str:
    """As `_escaped`; nor does the text begin a list, a quotation or a rule."""
    return re.sub(r"^\s*(\d*)([-+.)])(?=[-\s]|$)", r"\1\\\2", _escaped(text))


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
