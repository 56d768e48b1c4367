"""Drawn figures as a page shows them, by day and in the dark."""

import base64
import re
from dataclasses import dataclass
from typing import Literal

_MEDIA = {"svg": "image/svg+xml", "png": "image/png", "gif": "image/gif"}
_GREY = re.compile(rb"#([0-9a-f]{2})\1\1\b")
_BACK = (0x16, 0x18, 0x1B)  # what is white by day; the page has it too
_TEXT = (0xE4, 0xE4, 0xE4)  # what is black


@dataclass(frozen=True)
class Picture:
    """A drawn figure: its file's bytes, one sentence below it, and words for readers who do not see it."""

    name: str
    caption: str
    content: bytes
    kind: Literal["svg", "png", "gif"]
    alt: str

    @property
    def is_wide(self) -> bool:
        """Whether a phone shows it readably only when it scrolls; animations are small."""
        return self.kind != "gif"

    @property
    def uri(self) -> str:
        """Address that holds the picture itself; unlike in inlined SVG, ids cannot clash and scripts cannot run."""
        content = dimming(self.content) if self.kind == "svg" else self.content
        return f"data:{_MEDIA[self.kind]};base64,{base64.b64encode(content).decode()}"


def dimming(svg: bytes) -> bytes:
    """A drawn SVG that turns dark where the page does.

    Only greys change, white and black among them: they are background, text, axes and grid. Colours mean something,
    and stay as they are on paper; they were chosen to be told apart, and are on dark ground too.
    """
    head, tag, body = svg.partition(b"<defs>")
    if not tag:
        return svg
    rules = [f"text{{fill:{_dark(0)}}}"]
    for grey in sorted({found[1] for found in _GREY.finditer(svg)}):
        day, night = f"#{grey.decode() * 3}", _dark(int(grey, 16))
        rules += [f'[style*="{part}: {day}"]{{{part}:{night}!important}}' for part in ("fill", "stroke")]
    style = f"<style>@media screen and (prefers-color-scheme: dark){{{''.join(rules)}}}</style>"
    return head + style.encode() + tag + body


def _dark(grey: int) -> str:
    """The grey, 0 to 255, that stands for another in the dark."""
    mixed = (round(text + (back - text) * grey / 255) for text, back in zip(_TEXT, _BACK, strict=True))
    return "#" + "".join(f"{level:02x}" for level in mixed)
