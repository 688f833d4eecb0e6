"""Images: where they come from, how they are decoded and augmented. Called, it is the verb `maekit data`."""

from maekit.named_alike import may_be_called

may_be_called(__name__)
