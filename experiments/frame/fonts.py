"""Fonts at hand, and whether they have the letters of a text."""

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

# that have Korean, Chinese and Japanese, where there is one
FONTS = ("Noto Sans CJK KR", "Noto Sans CJK JP", "Noto Sans KR", "NanumGothic",
         "WenQuanYi Zen Hei", "Malgun Gothic", "Apple SD Gothic Neo")  # fmt: skip


def fonts() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FONTS if name in installed)]


def drawable(texts: list[str], names: list[str]) -> bool:
    """Whether the fonts have every character, and matplotlib can join them.

    It leaves letters of Korean that make no syllable apart, and finds none for them.
    """
    files = [font_manager.findfont(name) for name in names]
    known = set().union(*(FT2Font(file).get_charmap() for file in files))
    letters = (c for text in texts for c in text if not c.isspace())
    return all(ord(c) in known and not "\u1100" <= c <= "\u11ff" for c in letters)
