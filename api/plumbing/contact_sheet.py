"""Draws the contact sheet of a batch: a poster per video, and below it what sets it apart."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

_WIDE: Final = 320  # of a poster, in pixels
_TALLEST: Final = 480
_GAP: Final = 12
_LINE: Final = 20
_TEXT: Final = 15
_PAPER, _BLANK, _INK, _PALE = "#0b0d11", "#191d25", "#e8ebf0", "#a6afbd"
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Shot:
    """One place of a sheet."""

    poster: bytes | None  # an image file; None: there is none
    title: str
    note: str


def draw(shots: Sequence[Shot], columns: int) -> bytes:
    """Lay shots out in rows, as a JPEG."""
    pictures = [_decoded(shot.poster) for shot in shots]
    tall = max((picture.height for picture in pictures if picture), default=_WIDE * 9 // 16)
    step_x, step_y = _WIDE + _GAP, tall + 2 * _LINE + 2 * _GAP
    rows = math.ceil(len(shots) / columns)
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    for at, (shot, picture) in enumerate(zip(shots, pictures, strict=True)):
        x, y = _GAP + at % columns * step_x, _GAP + at // columns * step_y
        if picture is None:
            pen.rectangle((x, y, x + _WIDE, y + tall), _BLANK)
        else:
            sheet.paste(picture, (x + (_WIDE - picture.width) // 2, y + tall - picture.height))
        for line, (text, ink) in enumerate(((shot.title, _INK), (shot.note, _PALE))):
            below = (x, y + tall + _GAP // 2 + line * _LINE)
            pen.text(below, _fitted(text, font), ink, font)
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=88)
    return out.getvalue()


def _decoded(poster: bytes | None) -> Image.Image | None:
    """Decode a poster at the size of its place; one that is damaged leaves the place blank."""
    if poster is None:
        return None
    try:
        with Image.open(io.BytesIO(poster), formats=("WEBP",)) as image:
            return ImageOps.contain(image.convert("RGB"), (_WIDE, _TALLEST))
    except OSError:
        return None


def _fitted(text: str, font: _Font) -> str:
    if font.getlength(text) <= _WIDE:
        return text
    while text and font.getlength(f"{text}…") > _WIDE:
        text = text[:-1]
    return f"{text}…"
