"""The page on which people hide parts of a picture. Called, it is the verb `maekit app`."""

from maekit.named_alike import may_be_called

may_be_called(__name__)
