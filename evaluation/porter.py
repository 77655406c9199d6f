"""Word stems by Porter's algorithm (1980) with the changes of NLTK, which the usual ROUGE scorer takes them from."""

from itertools import pairwise

_IRREGULAR = {
    "skies": "sky",
    "dying": "die",
    "lying": "lie",
    "tying": "tie",
    "innings": "inning",
    "outings": "outing",
    "cannings": "canning",
} | {word: word for word in ("sky", "news", "inning", "outing", "canning", "howe", "proceed", "exceed", "succeed")}

# Suffix -> what replaces it, in the order in which they are tried: the first that fits decides.
_STEP_2 = {
    "ational": "ate",
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "izer": "ize",
    "bli": "ble",
    "alli": "al",
    "entli": "ent",
    "eli": "e",
    "ousli": "ous",
    "ization": "ize",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "iveness": "ive",
    "fulness": "ful",
    "ousness": "ous",
    "aliti": "al",
    "iviti": "ive",
    "biliti": "ble",
    "fulli": "ful",
}
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = (
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate"),
    *("iti", "ous", "ive", "ize"),
)


def stem(word: str) -> str:
    """The stem of a word in lower case."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = _without_y(_without_past(_without_plural(word)))
    word = _step_2(word)
    word = _replaced(word, _STEP_3)
    word = _step_4(word)
    if word.endswith("e"):
        shorter = word[:-1]
        if _measure(shorter) > 1 or (_measure(shorter) == 1 and not _ends_short(shorter)):
            word = shorter
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _without_plural(word: str) -> str:
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _without_past(word: str) -> str:
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        shorter = word.removesuffix(suffix)
        if shorter != word and not all(_consonants(shorter)):
            break
    else:
        return word
    if shorter.endswith(("at", "bl", "iz")):
        return shorter + "e"
    if len(shorter) >= 2 and shorter[-1] == shorter[-2] and _consonants(shorter)[-1]:
        return shorter if shorter[-1] in "lsz" else shorter[:-1]
    return shorter + "e" if _measure(shorter) == 1 and _ends_short(shorter) else shorter


def _without_y(word: str) -> str:
    return word[:-1] + "i" if word.endswith("y") and len(word) > 2 and _consonants(word[:-1])[-1] else word


def _step_2(word: str) -> str:
    if word.endswith("alli") and _measure(word[:-4]) > 0:
        return _step_2(word[:-2])
    replaced = _replaced(word, _STEP_2)
    if word.endswith("logi") and not word.endswith(tuple(_STEP_2)):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    return replaced


def _replaced(word: str, replacements: dict[str, str]) -> str:
    for suffix, replacement in replacements.items():
        if word.endswith(suffix):
            shorter = word.removesuffix(suffix)
            return shorter + replacement if _measure(shorter) > 0 else word
    return word


def _step_4(word: str) -> str:
    for suffix in _STEP_4:
        if word.endswith(suffix):
            shorter = word.removesuffix(suffix)
            is_removed = _measure(shorter) > 1 and (suffix != "ion" or shorter[-1] in "st")
            return shorter if is_removed else word
    return word


def _consonants(word: str) -> list[bool]:
    """For each letter whether it is a consonant: `y` is one at the start and after a vowel."""
    flags: list[bool] = []
    for letter in word:
        flags.append(letter not in "aeiou" and (letter != "y" or not flags or not flags[-1]))
    return flags


def _measure(word: str) -> int:
    """How often a vowel is followed by a consonant."""
    flags = _consonants(word)
    return sum(second and not first for first, second in pairwise(flags))


def _ends_short(word: str) -> bool:
    """Whether a word ends in consonant, vowel, consonant other than w, x and y, or is vowel, consonant."""
    flags = _consonants(word)
    if len(word) == 2:
        return flags == [False, True]
    return flags[-3:] == [True, False, True] and word[-1] not in "wxy"
