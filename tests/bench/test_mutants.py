"""`python -m bench.mutants`: its list fits the code, and it tells a fault that a test finds from others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import mutants
from bench.mutants import Fault, check, covering, failing, listed

FAULT = Fault("a sign", "sum.py", "a + b", "a - b", ("test_sum.py",))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project of one function, with a test that does not look at zero."""
    (tmp_path / "sum.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "test_sum.py").write_text(
        "import pytest\nfrom sum import add\n\ndef test_add():\n    assert add(2, 0) == 2\n\n"
        "@pytest.mark.slow\ndef test_slow():\n    assert add(2, 3) == 5\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: takes long\n")
    return tmp_path


def test_the_list_fits_the_code() -> None:
    assert check(listed()) == []
    assert len({fault.what for fault in listed()}) == len(listed()) >= 20


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (replace(FAULT, old="a * b"), "stands 0 times"),
        (replace(FAULT, old="a"), "expected once"),
        (replace(FAULT, new="a -"), "SyntaxError"),
        (replace(FAULT, file="gone.py"), "FileNotFoundError"),
        (replace(FAULT, tests=("test_gone.py",)), "no test_gone.py"),
    ],
)
def test_a_list_that_does_not_fit_is_noticed(tree: Path, fault: Fault, said: str) -> None:
    assert check([FAULT], tree) == []
    assert said in check([fault], tree)[0]


def test_the_nearest_tests_are_taken() -> None:
    by_start = {"a/": ["t1"], "a/b": ["t2"]}
    assert covering("a/c.py", by_start) == ("t1",) and covering("a/b/c.py", by_start) == ("t2",)
    with pytest.raises(ValueError, match="has nothing for"):
        covering("c.py", by_start)


@pytest.mark.slow
def test_what_a_test_finds_and_what_none_does(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "ROOT", tree)
    with mutants.copied(FAULT) as faulty:
        assert failing(faulty, FAULT.tests, slow=False) == ""
        assert failing(faulty, FAULT.tests, slow=True) == "test_sum.py::test_slow"
    assert "a + b" in (tree / "sum.py").read_text(), "the tree itself is left alone"
    assert mutants.verdict(replace(FAULT, new="b")) == "test_sum.py::test_add"
    assert failing(tree, FAULT.tests, slow=False) == "", "without a fault nothing fails"
