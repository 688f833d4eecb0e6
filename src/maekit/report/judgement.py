"""What a report says of a classifier that was judged by held-out images."""

from maekit.inference.evaluate import DRAWN_CLASSES, Evaluation, share, shown_classes
from maekit.inference.one_pass import printable
from maekit.report import figures
from maekit.sections import Figure, Heading, Section, Table, Text


def sections(said: Evaluation | None) -> list[Section]:
    """The headline, a table by class and, for up to 30 classes, the confusion; nothing where nothing was judged."""
    if said is None:
        return []
    classes, (images, _) = said.table(), said.per_class()
    shown = shown_classes(classes)
    rows = [[printable(name), share(values["top1"]), f"{values['images']:,}"] for name, values in shown]
    note = "" if len(shown) == len(classes) else f"The worst {len(shown)} of {len(classes)} classes."
    parts: list[Section] = [
        Heading("How often it is right"),
        Text(
            f"Top-1 {said.top1:.2%} on {said.images:,} held-out images (top-5 {said.top5:.2%}, loss {said.loss:.4f}); "
            f"always naming the most frequent class would give {int(images.max()) / said.images:.2%}."
        ),
        Table(["class", "top-1", "images"], rows, note),
    ]
    if len(said.classes) <= DRAWN_CLASSES:
        drawn = figures.heat(said.confusion().numpy(), [printable(name) for name in said.classes])
        parts.append(
            Figure(drawn, "Which class is taken for which: counts, coloured by their share of the true class.")
        )
    return parts
