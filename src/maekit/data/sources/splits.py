"""Training, validation and test images side by side: told apart by one rule for all kinds of sources, never joined.

Folders. Names that say a split are those made of a split's word (`train`, `training`, `val`, `valid`, `validation`,
`dev`, `eval`, `test`, `testing`, ..., in any case) and, maybe, digits and words that say nothing (`images`, `set`,
`data`): `Train`, `train2017`, `test_set`; also names that are equal but for that word: `seg_train`, `seg_test`. The
folders at one depth are splits where two different ones are among them, and
- there is no other folder; or
- one of them is for training, and the others are fewer, or the splits hold folders of the same names (classes).
Further down than at the top they must hold two thirds of all images. So `test` among `cat` and `dog` is a class, and so
is `train` among vehicles. One split's folder alone (`train/cat`, `train/dog`) is a split too.

Files of parquet and tar are told apart by the folders they are in, else by the words of their names which not all of
them have: `train.parquet` and `test.parquet`, `imagenet1k-train-0000.tar` and `imagenet1k-validation-00.tar`. Names as
the hub gives them (`NAME-00000-of-00004`) are of the split NAME whatever it is.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from maekit.data.sources.contents import Parts
from maekit.errors import DataError

_ROLES = {
    "train": ("train", "training", "trn"),
    "trainval": ("trainval",),
    "val": ("val", "valid", "validation", "validate", "vld", "dev", "eval", "evaluation", "holdout", "heldout"),
    "test": ("test", "testing", "tst"),
    "unlabelled": ("unlabelled", "unlabeled", "unsupervised"),
}
"""What split is meant by a word."""
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words}
_ORDER = list(_ROLES)
_SAYS_NOTHING = {"", "set", "sets", "split", "data", "dataset", "images", "image", "imgs", "img", "photos", "pictures"}
_LETTERS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # `trainA` and `TrainSet` are two words
_OF_MANY = re.compile(r"(.+?)-\d{5}-of-\d{5}")


@dataclass(frozen=True)
class Splits:
    """Which of some files belong to which split."""

    files: dict[str, list[int]]
    """Places of a split's files, by the split's word: training first."""
    level: int | None
    """How deep the folders are that tell them apart, from 0; None: the files' own names do."""
    strays: tuple[int, ...] = ()
    """Places of files that are in none."""

    def has(self, wanted: str) -> bool:
        """Whether a split, or one of several, `train+val`, is there."""
        return any(_meant(word, self) for word in wanted.split("+"))


def find_splits(files: Sequence[Parts], *, by_file_name: bool) -> Splits | None:
    """The splits that files, as paths relative to a folder, belong to. None: nothing says so.

    by_file_name: whether files' own names can tell, as those of packed ones do.
    """
    single: Splits | None = None
    for level in range(max((len(parts) for parts in files), default=1) - 1):
        if words := _of_folders(files, level):
            of = [words.get(parts[level]) if len(parts) > level + 1 else None for parts in files]
            found = _splits(of, level)
            if len(found.files) > 1:
                return found
            single = single or found
    by_name = _of_files(files) if by_file_name else None
    return by_name if by_name is not None and len(by_name.files) > 1 else single or by_name


def chosen(text: str, splits: Splits | None, wanted: str) -> list[int]:
    """Places, in order, of the files of a split, or of several: `train+val`. DataError names those there are."""
    if splits is None:
        raise DataError(f"{text}: has no splits, so @{wanted} chooses nothing; take {text} as a whole")
    places: list[int] = []
    for word in wanted.split("+"):
        there = _meant(word, splits)
        if there is None:
            raise DataError(f"{text}: has no split {word!r}; there are {', '.join(splits.files)}")
        places += splits.files[there]
    return sorted(set(places))


def refuse_several_splits(text: str, files: Sequence[Parts], splits: Splits | None, noun: str) -> None:
    """Raises DataError, with what to type for each, where there are several splits. noun: of a file."""
    if splits is None or len(splits.files) < 2:
        return
    counts = ", ".join(f"{word} ({counted(len(places), noun)})" for word, places in splits.files.items())
    if splits.strays:
        counts += f", and {counted(len(splits.strays), noun)} in none of them ({'/'.join(files[splits.strays[0]])})"
    at = text.rstrip("/")
    commands = " or ".join(
        f"{at}/{'/'.join(prefix)}" if (prefix := folder_of(files, splits, word)) else f"{at}@{word}"
        for word in splits.files
    )
    also = "" if at + "@" in commands else f", or {at}@{next(iter(splits.files))} and so on"
    raise DataError(
        f"{text}: holds several splits, {counts}; take one of them: {commands}{also}; all at once: "
        f"{at}@{'+'.join(splits.files)}"
    )


def counted(count: int, noun: str) -> str:
    """`1 image`, `1,000 images`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def folder_of(files: Sequence[Parts], splits: Splits, word: str) -> Parts | None:
    """The one folder that holds a split, relative; None where there are several, or files' names tell."""
    if splits.level is None:
        return None
    folders = {files[place][: splits.level + 1] for place in splits.files[word]}
    return folders.pop() if len(folders) == 1 else None


def says_split(name: str) -> str | None:
    """The split's word in a folder's name that says no more than that."""
    words = _split_words(name)
    found = [word for word in map(_base, words) if word in _ROLE_OF]
    rest = [word for word in words if _base(word) not in _ROLE_OF]
    return found[0] if len(found) == 1 and set(rest) <= _SAYS_NOTHING else None


def _split_words(name: str) -> list[str]:
    return [word.lower() for word in _LETTERS.findall(name)]


def _base(word: str) -> str:
    """`trainset` as `train`."""
    for ending in ("set", "images", "data", "split"):
        if word.endswith(ending) and word.removesuffix(ending) in _ROLE_OF:
            return word.removesuffix(ending)
    return word


def _of_folders(files: Sequence[Parts], level: int) -> dict[str, str]:
    """Names of folders at a depth that are splits, with their words; empty where they are not."""
    names = {parts[level] for parts in files if len(parts) > level + 1}
    words = {name: word for name in names if (word := says_split(name))} or _alike(names)
    others = names - words.keys()
    if level and sum(len(parts) <= level + 1 or parts[level] in others for parts in files) > len(files) / 3:
        return {}  # splits of one class among others, say
    if not words or (len(set(words.values())) < 2 and (others or len(words) > 1)):
        return {}
    if not others:
        return words
    trains = any(_ROLE_OF[word] in ("train", "trainval") for word in words.values())
    return words if trains and (len(others) < len(words) or _share_folders(files, level, words)) else {}


def _alike(names: set[str]) -> dict[str, str]:
    """Names that are equal but for a split's word: `seg_train` and `seg_test`, `trainA` and `testA`."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        words = _split_words(name)
        for place, word in enumerate(words):
            if word in _ROLE_OF:
                found.setdefault((*words[:place], "*", *words[place + 1 :]), {})[name] = word
    frames = (words for words in found.values() if len(set(words.values())) > 1)
    return {name: word for words in frames for name, word in words.items()}


def _share_folders(files: Sequence[Parts], level: int, words: dict[str, str]) -> bool:
    """Whether some name is that of a folder in two splits."""
    inside = {(parts[level], name) for parts in files for name in parts[level + 1 : -1] if parts[level] in words}
    of_word = Counter(name for name, _ in {(name, words[top]) for top, name in inside})
    return any(count > 1 for count in of_word.values())


def _of_files(files: Sequence[Parts]) -> Splits | None:
    stems = [match[1] if (match := _OF_MANY.match(parts[-1])) else None for parts in files]
    hub = [stem.lower() for stem in stems if stem]
    said = [set(_words(parts[-1])) for parts in files]
    if len(hub) == len(files) and not all(said):
        return _splits(hub, None)
    everywhere = set.intersection(*said) if said else set()
    telling = [words - everywhere for words in said]
    if not any(telling):  # all are of the same split, or of none
        telling = said
    of = [next((word for word in reversed(list(_words(parts[-1]))) if word in words), None)
          for parts, words in zip(files, telling, strict=True)]  # fmt: skip
    return _splits(of, None) if any(of) else None


def _words(name: str) -> Iterator[str]:
    return (base for word in _split_words(name) if (base := _base(word)) in _ROLE_OF)


def _splits(of: Sequence[str | None], level: int | None) -> Splits:
    files: dict[str, list[int]] = {}
    for place, word in enumerate(of):
        if word is not None:
            files.setdefault(word, []).append(place)
    ordered = sorted(files, key=lambda word: (_ORDER.index(_ROLE_OF[word]) if word in _ROLE_OF else len(_ORDER), word))
    return Splits(
        {word: files[word] for word in ordered}, level, tuple(place for place, word in enumerate(of) if word is None)
    )


def _meant(wanted: str, splits: Splits) -> str | None:
    """The split of that word, else the only one that means the same, as `val` and `validation` do."""
    wanted = wanted.strip().lower()
    if wanted in splits.files:
        return wanted
    said = says_split(wanted) or wanted
    role = _ROLE_OF.get(said)
    same = [word for word in splits.files if word == said or (role is not None and _ROLE_OF.get(word) == role)]
    return same[0] if len(same) == 1 else None
