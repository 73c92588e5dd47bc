"""Every argument of every public function: what is foreign is refused by the argument's name."""

import pytest
from every_call import DECISIVE, FOREIGN, arguments, outcome, public


@pytest.mark.parametrize("name", public())
def test_what_no_argument_takes_is_refused_by_its_name(name, tmp_path, monkeypatch):
    """The error is the package's own, of a usual kind, and names the argument."""
    monkeypatch.chdir(tmp_path)
    foreign = {
        (argument, kind): outcome(name, argument, FOREIGN[kind])
        for argument in arguments(name, public()[name])
        for kind in DECISIVE
    }
    unclear = {k: words for k, words in foreign.items() if words not in ("accepted", "clear")}
    assert unclear == {}
