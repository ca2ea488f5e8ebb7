"""A report's pages: tables and pictures, as Markdown and as one HTML file that needs no other."""

import base64
import html
import io
import math
from dataclasses import dataclass

# ---- what a page is made of ----------------------------------------------------------------------


@dataclass
class Table:
    """Texts in rows and columns. A first column `task` is written where it changes. The lines of a
    text after its first are small print."""

    columns: list[str]
    rows: list[list[str]]
    note: str = ""
    folded: bool = False  # in HTML


@dataclass
class Picture:
    """An SVG file."""

    name: str
    title: str
    svg: bytes


@dataclass
class Section:
    title: str
    note: str
    parts: list[Table | Picture]


@dataclass
class Page:
    """What stands under one heading; no table mixes two pages."""

    key: str
    title: str
    lead: str
    sections: list[Section]


def count(number_of: int, word: str) -> str:
    """1 run, 2 runs."""
    return f"{number_of} {word}" if number_of == 1 else f"{number_of} {word}s"


# ---- pictures ------------------------------------------------------------------------------------

COLORS = ("#3b6fb6", "#d1495b", "#3a9d6e", "#c77f1a", "#7b5ea7", "#4f8a99", "#8c6d46", "#707070")
DASHES = ("-", "--", ":", "-.")


def new_figure(x_label: str, y_label: str):
    """An empty figure with one panel, as wide as a telephone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.set(xlabel=x_label, ylabel=y_label)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def draw_line(axis, position: int, name: str, x, y, band) -> None:
    """The line of a method, with a band (2, n) or None, in the colour of its position."""
    color = COLORS[position % len(COLORS)]
    dashes = DASHES[position // len(COLORS) % len(DASHES)]
    label = name if len(name) <= 56 else f"{name[:55]}…"
    marker = "." if len(x) < 30 else None
    axis.plot(x, y, linestyle=dashes, color=color, marker=marker, label=label)
    if band is not None:
        axis.fill_between(x, *band, color=color, alpha=0.15, lw=0)


def svg(figure) -> bytes:
    """A figure with its legend below, the same bytes for the same figure."""
    import matplotlib

    handles, names = figure.axes[0].get_legend_handles_labels()
    columns = 1 if max(map(len, names)) > 20 else 2
    figure.set_figheight(3.2 + 0.2 * math.ceil(len(names) / columns))
    where = {"loc": "outside lower center", "ncols": columns}
    figure.legend(handles, names, frameon=False, fontsize=9, **where)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "report"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


# ---- Markdown ------------------------------------------------------------------------------------


def markdown_table(table: Table) -> list[str]:
    """Its lines; a task is written where it changes."""
    lines = [f"| {' | '.join(table.columns)} |", "| --- " * len(table.columns) + "|"]
    before = None
    for cells in table.rows:
        texts = [cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells]
        if table.columns[0] == "task" and cells[0] == before:
            texts[0] = ""
        before = cells[0]
        lines.append(f"| {' | '.join(texts)} |")
    return [*lines, "", *([table.note, ""] if table.note else [])]


def markdown(pages: list[Page], command: str) -> str:
    """report.md."""
    lines = ["# Report", "", f"`{command}`", ""]
    for page in pages:
        lines += [f"## {page.title}", "", page.lead, ""]
        for section in page.sections:
            lines += [f"### {section.title}", ""]
            lines += [section.note, ""] if section.note else []
            for part in section.parts:
                if isinstance(part, Table):
                    lines += markdown_table(part)
                else:
                    lines += [f"![{part.title}](figures/{part.name}.svg)", ""]
    return "\n".join(lines)


# ---- HTML ----------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light; --line: #d9dee5; --quiet: #5a6472; --link: #2a5ca8; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: #1d232b; background: #fff; }
header, main { max-width: 1180px; margin: 0 auto; padding: 0 16px; }
h1 { font-size: 1.5rem; margin: 20px 0 4px; }
h2 { font-size: 1.3rem; margin: 20px 0 4px; }
h3 { font-size: 1.05rem; margin: 32px 0 4px; padding-top: 8px; border-top: 1px solid var(--line); }
p { max-width: 75ch; margin: 4px 0 12px; }
code { font-size: 0.85em; overflow-wrap: anywhere; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 12px 0; padding: 8px 0;
      border-bottom: 2px solid var(--line); }
.note { color: var(--quiet); font-size: 0.9rem; }
.page { display: none; padding-bottom: 48px; scroll-margin-top: 100vh; }  /* links show the top */
.page:target { display: block; }
main:not(:has(.page:target)) .page:first-of-type { display: block; }
.scroll { overflow-x: auto; margin: 8px 0 16px;  /* shadows where there is more to see */
  background: linear-gradient(to left, #fff 24px, #fff0 60px) right / 60px 100% no-repeat local,
              linear-gradient(to left, #0002, #0000) right / 14px 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; text-align: left; vertical-align: top; white-space: nowrap; }
thead th { border-bottom: 1px solid #9aa4b1; }
tbody tr { border-bottom: 1px solid var(--line); }
td.text { white-space: normal; min-width: 9em; max-width: 26em; }
td.lines { white-space: normal; min-width: 16em; overflow-wrap: anywhere; }
tr.task th { padding-top: 14px; white-space: normal; }
tr.task div { position: sticky; left: 0; width: fit-content; max-width: calc(100vw - 32px); }
small { display: block; color: var(--quiet); font-weight: normal; font-size: 0.82em; }
td small { white-space: normal; }
summary { cursor: pointer; color: var(--link); margin: 8px 0; }
.figures { display: grid; gap: 16px;
           grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); }
figure { margin: 0; }
figure img { width: 100%; height: auto; }
figcaption { font-size: 0.9rem; font-weight: 600; }
@media (max-width: 600px) { table { font-size: 0.8rem; } th, td { padding-right: 8px; }
                            td.text { min-width: 6.5em; } }
@media print { .page { display: block; break-before: page; } nav { display: none; } }
"""


def html_text(text: str) -> str:
    """Escaped, with `code` and, after the first line, small print."""
    first, *rest = html.escape(text).split("\n")
    small = "".join(f"<small>{line}</small>" for line in rest)
    parts = (first + small).split("`")
    for position in range(1, len(parts) - 1, 2):
        parts[position] = f"<code>{parts[position]}</code>"
    return "".join(parts)


def html_cell(column: str, text: str) -> str:
    """A cell; words wrap, numbers do not."""
    kind = {"method": "text", "X": "text", "Y": "text", "machine": "text"}.get(column, "")
    if column in ("what", "command, file"):
        kind = "lines"
    return f'<td class="{kind}">{html_text(text)}</td>' if kind else f"<td>{html_text(text)}</td>"


def html_table(table: Table) -> str:
    """With a line of its own for each task, which is no column then."""
    grouped = table.columns[0] == "task"
    columns = table.columns[1:] if grouped else table.columns
    lines = [f"<th>{html_text(column)}</th>" for column in columns]
    lines = ["<table><thead><tr>", *lines, "</tr></thead><tbody>"]
    before = None
    for cells in table.rows:
        if grouped and cells[0] != before:
            before = cells[0]
            task = f'<th colspan="{len(columns)}"><div>{html_text(before)}</div></th>'
            lines.append(f'<tr class="task">{task}</tr>')
        shown = cells[1:] if grouped else cells
        texts = [html_cell(column, cell) for column, cell in zip(columns, shown, strict=True)]
        lines.append(f"<tr>{''.join(texts)}</tr>")
    lines.append("</tbody></table>")
    text = f'<div class="scroll">{"".join(lines)}</div>'
    if table.note:
        text += f'<p class="note">{html_text(table.note)}</p>'
    if table.folded:
        text = f"<details><summary>{count(len(table.rows), 'row')}</summary>{text}</details>"
    return text


def html_picture(picture: Picture) -> str:
    """With its bytes."""
    data = base64.b64encode(picture.svg).decode()
    title = html.escape(picture.title)
    image = f'<img alt="{title}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure><figcaption>{title}</figcaption>{image}</figure>"


def html_section(section: Section) -> str:
    """Its tables, then its pictures beside each other."""
    lines = [f"<h3>{html.escape(section.title)}</h3>"]
    if section.note:
        lines.append(f'<p class="note">{html_text(section.note)}</p>')
    lines += [html_table(part) for part in section.parts if isinstance(part, Table)]
    pictures = [html_picture(part) for part in section.parts if isinstance(part, Picture)]
    if pictures:
        lines.append(f'<div class="figures">{"".join(pictures)}</div>')
    return "\n".join(lines)


def html_document(pages: list[Page], command: str) -> str:
    """index.html: all in one file, one page shown at a time."""
    links = [f'<a href="#{page.key}">{html.escape(page.title)}</a>' for page in pages]
    lines = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Report</title><style>{STYLE}</style></head><body>",
        f'<header><h1>Report</h1><p class="note">{html_text(f"`{command}`")}</p>',
        f"<nav>{''.join(links)}</nav></header><main>",
    ]
    for page in pages:
        lines.append(f'<section class="page" id="{page.key}"><h2>{html.escape(page.title)}</h2>')
        lines.append(f"<p>{html_text(page.lead)}</p>")
        lines += [html_section(section) for section in page.sections]
        lines.append("</section>")
    return "\n".join([*lines, "</main></body></html>\n"])
