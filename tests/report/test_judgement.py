import torch

from maekit.inference.evaluate import Evaluation
from maekit.report import judgement
from maekit.sections import Figure, Table, Text


def evaluation(classes: int) -> Evaluation:
    """Three images of each class; of class 1, two are taken for class 0."""
    labels = torch.arange(classes).repeat_interleave(3)
    guesses = labels[:, None].clone()
    guesses[3:5, 0] = 0
    return Evaluation(guesses, labels, torch.full((len(labels),), 0.5), tuple(f"class {n}" for n in range(classes)))


def test_a_judgement_has_headline_table_and_confusion():
    said = judgement.sections(evaluation(4))
    (headline,) = (section.body for section in said if isinstance(section, Text))
    assert headline.startswith("Top-1 83.33% on 12 held-out images")
    assert "most frequent class would give 25.00%" in headline
    (table,) = (section for section in said if isinstance(section, Table))
    assert table.rows[1] == ["class 1", "33.33%", "3"]
    assert any(isinstance(section, Figure) for section in said)


def test_of_many_classes_the_worst_are_shown_and_no_confusion():
    said = judgement.sections(evaluation(40))
    (table,) = (section for section in said if isinstance(section, Table))
    assert len(table.rows) == 10
    assert table.rows[0][0] == "class 1"
    assert table.note == "The worst 10 of 40 classes."
    assert not any(isinstance(section, Figure) for section in said)
