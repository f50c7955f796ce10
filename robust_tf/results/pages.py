"""Parts of a report as one HTML page and as Markdown; what they say is not known here."""

import base64
import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 70rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; font-size: 0.85rem; margin: 0.8rem 0; }
.wide { overflow-x: auto; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd; text-align: right;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.text { text-align: left; white-space: normal; min-width: 14rem; }
th { border-bottom: 2px solid #888; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
figcaption { font-size: 0.9rem; color: #444; }
details { margin: 0.5rem 0; } summary { cursor: pointer; }
.note { border-left: 4px solid #c60; padding: 0.3rem 0.9rem; background: #fff6ec; }
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        notes: paragraphs.
        table: what it shows, all text; None for none.
        figure: likewise, a PNG file.
        caption: the figure's.
        folded: whether the page shows the table only when asked to.
        warning: whether the notes are about what is missing.
    """

    title: str = ""
    notes: tuple[str, ...] = ()
    table: pd.DataFrame | None = None
    figure: Path | None = None
    caption: str = ""
    folded: bool = False
    warning: bool = False


def page(title: str, sections: Sequence[Section]) -> str:
    """Sections as HTML that needs nothing but itself: figures are in it."""
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
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _html_table(table: pd.DataFrame) -> str:
    def row(cells: list[str], tag: str) -> str:
        def cell(text: str) -> str:
            css = ' class="text"' if len(text) > 30 and tag == "td" else ""
            return f"<{tag}{css}>{html.escape(text)}</{tag}>"

        return f"<tr>{''.join(map(cell, cells))}</tr>"

    body = "\n".join(row(list(map(str, cells)), "td") for cells in table.itertuples(index=False))
    head = row(list(table.columns), "th")
    return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def markdown(title: str, sections: Sequence[Section]) -> str:
    """Sections as Markdown, without their figures."""
    parts = [f"# {title}"]
    for section in sections:
        if section.title:
            parts.append(f"{'###' if section.folded else '##'} {section.title}")
        parts += section.notes
        if section.caption:
            parts.append(section.caption)
        if section.table is not None and len(section.table):
            table = section.table.astype(str)
            lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
