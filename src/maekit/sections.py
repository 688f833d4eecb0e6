"""What is told of work that was done: as text for a terminal, as HTML for reports and notebooks."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_LARGE = 100_000  # bytes of a picture
_NAMES = 12  # columns for the names of facts


@dataclass(frozen=True)
class Heading:
    """Opens a part of the page."""

    text: str


@dataclass(frozen=True)
class Text:
    """Paragraphs, parted by blank lines."""

    body: str


@dataclass(frozen=True)
class Table:
    """Rows of cells as they are to be read; cells that are numbers stand to the right. The first names the row."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    align: str = "<>"
    """In text, of each column: to the left or to the right; the last one for all that follow."""


@dataclass(frozen=True)
class Figure:
    """An `<svg>` element from `maekit.report.figures`; it is inserted as it is."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Picture:
    """A picture, embedded as PNG, or as JPEG where that is much smaller."""

    image: "Image.Image"
    caption: str


@dataclass(frozen=True)
class Strips:
    """Pictures as wide as the page, one under the other: what each shows, and its JPEG file."""

    rows: Sequence[tuple[str, bytes]]
    caption: str


@dataclass(frozen=True)
class Thumbnails:
    """Small pictures side by side: of each its JPEG file, and the words under it."""

    pictures: Sequence[tuple[bytes, str]]
    caption: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    values: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Part:
    """Sections that a page may have replaced later, found again by their name; none yet, where they are to come."""

    name: str
    sections: Sequence["Section"] = ()


Section = Heading | Text | Table | Figure | Picture | Strips | Thumbnails | Facts | Part


def text(section: Section) -> str:
    """A section as lines of plain text; nothing of what is to be looked at."""
    match section:
        case Heading(words) | Text(words):
            return words
        case Facts(values):
            return "\n".join(f"{name:<{_NAMES}}{value}" for name, value in values)
        case Table(headers, rows, _, align):
            lines = [headers, *rows]
            widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
            kept = [
                f"{{:{side}{width}}}" for side, width in zip(align.ljust(len(widths), align[-1]), widths, strict=True)
            ]
            return "\n".join("  ".join(kept).format(*line).rstrip() for line in lines)
        case _:
            return ""


def html(section: Section) -> str:
    """A section as part of a page. All words are escaped; only a Figure's svg is trusted."""
    match section:
        case Heading(words):
            return f"<h2>{escape(words)}</h2>"
        case Part(name, sections):
            return "\n".join([f'<section id="{escape(name)}">', *map(html, sections), "</section>"])
        case Text(body):
            return "\n".join(f"<p>{escape(part.strip())}</p>" for part in body.split("\n\n") if part.strip())
        case Table():
            return _table(section)
        case Figure(svg, caption):
            drawing = f'<div class="paper" role="img" aria-label="{escape(caption)}">{svg}</div>'
            return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"
        case Picture(image, caption):
            size = f'width="{image.width}" height="{image.height}"'
            drawing = f'<img class="paper" src="{_data_uri(image)}" alt="{escape(caption)}" {size}>'
            return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"
        case Strips(rows, caption):
            shown = "".join(f"<span>{escape(name)}</span>{_strip(name, jpeg)}" for name, jpeg in rows)
            return f'<figure><div class="strips">{shown}</div><figcaption>{escape(caption)}</figcaption></figure>'
        case Thumbnails(pictures, caption):
            shown = "".join(f"<div>{_strip(words, jpeg)}<span>{escape(words)}</span></div>" for jpeg, words in pictures)
            note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
            return f'<figure><div class="thumbnails">{shown}</div>{note}</figure>'
        case Facts(values):
            pairs = (f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in values)
            return "<dl>" + "".join(pairs) + "</dl>"


def _table(table: Table) -> str:
    headers = "".join(f'<th scope="col">{escape(header)}</th>' for header in table.headers)
    rows = "\n".join(f"<tr>{_cells(row)}</tr>" for row in table.rows)
    note = f"<figcaption>{escape(table.note)}</figcaption>" if table.note else ""
    return (
        f'<figure><div class="wide"><table><thead><tr>{headers}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>{note}</figure>"
    )


def _cells(row: Sequence[str]) -> str:
    first, *others = (escape(str(cell)) for cell in row)
    return f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others)


def _strip(name: str, jpeg: bytes) -> str:
    return f'<img src="{_in_words("jpeg", jpeg)}" alt="{escape(name)}">'


def _data_uri(image: "Image.Image") -> str:
    """As PNG, or, of a photograph that would be large so, as JPEG."""
    png, jpeg = BytesIO(), BytesIO()
    image.save(png, format="PNG")
    if png.tell() > _LARGE:
        image.convert("RGB").save(jpeg, format="JPEG", quality=90, subsampling=0)
        if 2 * jpeg.tell() < png.tell():
            return _in_words("jpeg", jpeg.getvalue())
    return _in_words("png", png.getvalue())


def _in_words(kind: str, encoded: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(encoded).decode()
