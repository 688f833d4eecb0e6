"""Two sources that belong together: one to learn from, one to be judged on."""

from maekit.data.sources.source import Source
from maekit.data.sources.subset import labels_of
from maekit.errors import DataError


def check_labelled_pair(train: Source, val: Source) -> None:
    """Raises DataError unless every image of both has a label, of the same two or more classes."""
    for source in (train, val):
        if not len(source):
            raise DataError(f"{source.text}: holds no image")
        if source.classes is None:
            raise DataError(f"{source.text}: has no labels, which are needed here")
        missing = int((labels_of(source) < 0).sum())
        if missing:
            raise DataError(f"{source.text}: {missing} of {len(source)} images have no label, which is needed here")
    first, second = (source.classes or () for source in (train, val))
    if first != second:
        only = ", ".join(sorted({*first} ^ {*second})[:5])
        where = f"in one alone: {only}" if only else "the same names in another order"
        raise DataError(f"{train.text} and {val.text}: have different classes; {where}")
    if len(first) < 2:
        raise DataError(f"{train.text}: has one class ({first[0]}), where two are needed")
