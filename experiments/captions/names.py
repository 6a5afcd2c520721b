"""The names of the ten digits in ten languages, and the letters they are made of."""

import unicodedata

NAMES = {
    "English": "zero one two three four five six seven eight nine",
    "German": "null eins zwei drei vier fünf sechs sieben acht neun",
    "Dutch": "nul een twee drie vier vijf zes zeven acht negen",
    "French": "zéro un deux trois quatre cinq six sept huit neuf",
    "Spanish": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "Italian": "zero uno due tre quattro cinque sei sette otto nove",
    "Polish": "zero jeden dwa trzy cztery pięć sześć siedem osiem dziewięć",
    "Turkish": "sıfır bir iki üç dört beş altı yedi sekiz dokuz",
    "Finnish": "nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän",
    "Korean": "영 일 이 삼 사 오 육 칠 팔 구",
}
LANGUAGES = list(NAMES)
TABLE = [[*names.split()] for names in NAMES.values()]  # [language][digit]


def taken_apart(name: str) -> str:
    """Letters, their marks behind them; of a syllable of Hangul its letters."""
    return unicodedata.normalize("NFD", name)


END = 0
LETTERS = sorted({c for names in TABLE for name in names for c in taken_apart(name)})
START = 1 + len(LETTERS)  # of the first language; the others follow
TOKENS = START + len(LANGUAGES)
LONGEST = 1 + max(len(taken_apart(name)) for names in TABLE for name in names)


def tokens(language: int, digit: int) -> list[int]:
    """The letters of a name as tokens, and the end."""
    name = taken_apart(TABLE[language][digit])
    return [1 + LETTERS.index(c) for c in name] + [END]


def text(tokens: list[int]) -> str:
    """What the tokens before the end spell; what is no letter as a question mark."""
    until = tokens.index(END) if END in tokens else len(tokens)
    found = (LETTERS[t - 1] if t < START else "?" for t in tokens[:until])
    return unicodedata.normalize("NFC", "".join(found))
