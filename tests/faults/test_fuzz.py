"""Whatever is in a file, maekit says in one line what is wrong with it: no other error, no signal, no hang."""

import faulthandler
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maekit.data.sources.shards import INDEX_SUFFIX
from mutations import FORMATS, KINDS, Format, mutated

EDITS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=40)),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module", params=FORMATS.values(), ids=FORMATS)
def valid(request, tmp_path_factory) -> tuple[Format, Path, bytes]:
    """A format, where a file of it belongs, and a valid one."""
    folder = tmp_path_factory.mktemp("fuzz")
    data = request.param.make(folder)
    assert request.param.survives(folder / request.param.name, data)
    return request.param, folder / request.param.name, data


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits=EDITS)
def test_mutated_files_are_refused_in_one_line_or_read(valid, edits):
    form, path, data = valid
    faulthandler.dump_traceback_later(20, exit=True)
    form.survives(path, mutated(data, edits))
    faulthandler.cancel_dump_traceback_later()


def test_mutations_do_harm(valid):
    form, path, data = valid
    taken = form.survives(path, mutated(data, [("cut", 0.0, b"x")]))
    assert taken == (path.name == f"b.tar{INDEX_SUFFIX}")  # a damaged index is made anew
