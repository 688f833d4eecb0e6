"""The words of a command line, each given to the option it belongs to.

An option takes no more words than fit it, so what follows may be a source or a file: `--image-size 64 a.jpg`,
`--kinds knn linear photos`.
"""

import re
from difflib import get_close_matches
from pathlib import Path

from maekit.config.options import Option, by_name
from maekit.errors import UsageError

_TRUTHS = {"true", "false", "yes", "no", "on", "off", "0", "1"}
_OPTION = re.compile(r"--?[A-Za-z]")
_SIZE = re.compile(r"[(\[]?-?\d+([xX×,]-?\d+)?[)\]]?|None")


class Words:
    """Words by the options they belong to.

    values: each option's path with its name as typed and its words, the last where it was given twice. unknown: options
    that are none, with the word that follows where one does.
    """

    def __init__(self, words: list[str], options: list[Option]) -> None:
        """Raises UsageError for a value that is missing, or cannot be told from what follows, or a word too many."""
        self.values: dict[str, tuple[str, list[str]]] = {}
        self.unknown: list[tuple[str, str | None]] = []
        self.loose: list[str] = []
        self.rest = list(words)
        self.names = by_name(options)
        self.place = next((option for option in options if option.words), None)
        self._sort()
        if self.loose and not self.unknown:
            self._place()

    def _sort(self) -> None:
        while self.rest:
            word = self.rest.pop(0)
            if word == "--":
                self.loose += self.rest
                break
            if not _OPTION.match(word):
                self.loose.append(word)
                continue
            typed, equals, value = word.partition("=")
            name = typed.replace("_", "-")
            option = self.names.get(name)
            if option is None:
                self._unknown(typed, value if equals else None)
                continue
            given = self._words_of(option, typed, [value] if equals else None)
            if option.words and option.path in self.values and option.item is str and option.takes == "one":
                raise UsageError(f"{typed}: is given twice, {self.values[option.path][1][0]!r} and {given[0]!r}")
            earlier = self.values.pop(option.path, None)
            if option.words and option.takes == "some" and earlier:
                given = earlier[1] + given
            self.values[option.path] = (name, given)

    def _unknown(self, typed: str, value: str | None) -> None:
        if value is None and self.rest and not _OPTION.match(self.rest[0]):
            value = self.rest.pop(0)  # for what is said of it; whether it is its value is not known
        self.unknown.append((typed, value))

    def _words_of(self, option: Option, typed: str, joined: list[str] | None) -> list[str]:
        if option.takes == "nothing":
            stray = joined or ([self.rest[0]] if self.rest and self.rest[0].lower() in _TRUTHS else [])
            if stray:
                raise UsageError(f"{typed} {stray[0]}: takes no value; write {option.name} or {option.negative[0]}")
            return []
        if joined is None and (not self.rest or re.match(r"--[A-Za-z]", self.rest[0])):
            if option.takes != "some":
                raise UsageError(f"{typed}: its value is missing")
            return []
        first = self.rest.pop(0) if joined is None else joined[0]
        if option.takes == "size":
            return [self._size(typed, first)]
        given = self._parted(option, first) if option.takes == "some" or option.count > 1 else [first]
        if option.takes == "some":
            return self._some(option, typed, given)
        if first in option.alone:
            return [first]
        while len(given) < option.count:
            if not self.rest or not option.fits(self.rest[0]):
                raise UsageError(f"{typed}: takes {option.count} values, got {' '.join(given)} alone")
            given.append(self.rest.pop(0))
        if len(given) > option.count:
            raise UsageError(f"{typed}: takes {option.count} values, got {' '.join(given)}")
        return given

    def _parted(self, option: Option, first: str) -> list[str]:
        """`0.2,1` as `0.2 1`: a comma is part of no number and no choice."""
        whole = option.item is str and not option.choices
        return [first] if whole or option.fits(first) or not first.strip(",") else first.split(",")

    def _size(self, typed: str, first: str) -> str:
        """`64`, or `64x96` of `64 96`."""
        if not _SIZE.fullmatch(first):
            raise UsageError(f"{typed}: expects a size in pixels, one number or HxW, got {first!r}")
        if not (first.isdigit() and self.rest and self.rest[0].isdigit()):
            return first
        if self.place and Path(self.rest[0]).exists():
            raise UsageError(
                f"{typed} {first} {self.rest[0]}: {self.rest[0]} may be a width or what lies here under that name; "
                f"write {typed} {first}x{self.rest[0]}, or ./{self.rest[0]}"
            )
        return f"{first}x{self.rest.pop(0)}"

    def _some(self, option: Option, typed: str, given: list[str]) -> list[str]:
        for word in given:
            if not option.fits(word):
                raise option.refusal(typed, word)
        while self.rest and not _OPTION.match(self.rest[0]) and (option.fits(self.rest[0]) or self._misspelt(option)):
            given.append(self.rest.pop(0))
        return given

    def _misspelt(self, option: Option) -> bool:
        """Whether the next word looks like one of an option's choices with a slip in it."""
        return bool(get_close_matches(self.rest[0], option.choices, n=1)) and not Path(self.rest[0]).exists()

    def _place(self) -> None:
        """Loose words where they belong. Raises UsageError where their place is taken or there is none."""
        place, (first, *others) = self.place, self.loose
        if place is None:
            raise UsageError(f"{first!r} stands where no value belongs; see --help")
        if place.path in self.values:
            typed, (given, *_) = self.values[place.path]
            raise UsageError(f"{first!r} stands where no value belongs: {typed} {given} is given; take one of them")
        if others and place.takes != "some":
            raise UsageError(f"{others[0]!r} stands where no value belongs: {place.name} {first} is given already")
        self.values[place.path] = (place.name, self.loose)
