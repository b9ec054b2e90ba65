from __future__ import annotations

import pytest

from perdure.cli.endings import UsageError
from perdure.cli.parameters import ParameterView, parse

K = ParameterView(name="k")
N_JOBS = ParameterView(name="n_jobs")
XS = ParameterView(name="xs", is_many=True)
CFG = ParameterView(name="cfg")
SHUFFLE = ParameterView(name="shuffle", is_flag=True)
ALL = [K, N_JOBS, XS, CFG, SHUFFLE]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["--k", "3"], {"k": "3"}),
        (["--k=3"], {"k": "3"}),
        (["--k", "-3"], {"k": "-3"}),
        (["--k", "--n"], {"k": "--n"}),
        (["--k="], {"k": ""}),
        (["--k", "a=b"], {"k": "a=b"}),
        (["--n-jobs", "2"], {"n_jobs": "2"}),
        (["--n_jobs", "2"], {"n_jobs": "2"}),
        (["--xs", "1"], {"xs": "1"}),
        (["--xs", "[1, 2]"], {"xs": "[1, 2]"}),
        (["--xs", "1", "--xs", "2"], {"xs": ["1", "2"]}),
        (
            ["--cfg.lr", "0.1", "--cfg.opt.name", "sgd"],
            {"cfg": {"lr": "0.1", "opt": {"name": "sgd"}}},
        ),
        (["--cfg", '{"lr": 0.1}'], {"cfg": '{"lr": 0.1}'}),
        (["--shuffle"], {"shuffle": True}),
        (["--no-shuffle"], {"shuffle": False}),
        (["--shuffle=false"], {"shuffle": False}),
    ],
)
def test_words_become_texts_by_parameter(words: list[str], expected: dict[str, object]) -> None:
    assert parse(words, ALL) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["3"], "unexpected word '3'"),
        (["-k", "3"], "unexpected word '-k'"),
        (["--"], "unexpected word '--'"),
        (["--kk", "3"], "no parameter --kk; did you mean '--k'"),
        (["--njobs", "3"], "did you mean '--n-jobs'"),
        (["--k"], "--k needs a value"),
        (["--k", "3", "--k", "4"], "--k is given twice"),
        (["--no-k"], "'k' is not a flag"),
        (["--shuffle=maybe"], "a flag is true or false"),
        (["--cfg", "{}", "--cfg.lr", "1"], "given as a whole and in parts"),
        (["--cfg.lr", "1", "--cfg", "{}"], "--cfg is given twice"),
    ],
)
def test_words_are_refused_with_what_is_wrong(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words, ALL)

    assert message in str(caught.value)


def test_unknown_parameter_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        parse(["--seed", "3"], [K, XS])

    assert "--k, --xs" in caught.value.hint
    assert "before the target" in caught.value.hint
