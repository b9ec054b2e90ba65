from __future__ import annotations

import pytest

from perdure.calls import CallId, StepCall
from perdure.errors import SecretMissing
from perdure.plan import Const, DictArg, FromSecret, FromStep, ListArg, ObjectArg
from perdure.worker.secrets import Redactor, resolve_secret, secret_names


def test_redactor_masks_every_secret_in_text_and_bytes() -> None:
    redactor = Redactor(["hush-hush", "hush-hush-2"])

    assert redactor.text("a hush-hush-2 b hush-hush") == "a *** b ***"
    assert redactor.data("é hush-hush".encode()) == "é ***".encode()


def test_redactor_masks_a_secret_that_is_not_utf8_however_it_is_printed() -> None:
    redactor = Redactor(["hush\udcff"])

    assert redactor.data(b"a hush\\udcff b hush\xff") == b"a *** b ***"


def test_redactor_masks_a_secret_within_a_url() -> None:
    redactor = Redactor(["p@ss/wo rd"])

    text = "//u:p%40ss%2Fwo%20rd@h //u:p%40ss/wo%20rd@h ?token=p%40ss%2Fwo+rd"
    assert redactor.text(text) == "//u:***@h //u:***@h ?token=***"


def test_redactor_lets_values_through_that_are_too_short_to_be_secrets() -> None:
    redactor = Redactor(["1", "abc"])

    assert redactor.text("1 abc") == "1 abc"
    assert redactor.longest == 0


def test_secret_that_is_missing_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNIT_TOKEN", raising=False)

    with pytest.raises(SecretMissing, match="UNIT_TOKEN=") as caught:
        resolve_secret("UNIT_TOKEN")
    assert caught.value.name == "UNIT_TOKEN"


def test_secret_names_are_found_at_any_depth() -> None:
    call = StepCall(
        id=CallId("r", "s", 1, 1),
        function="f",
        args=(ListArg((FromSecret("A"), Const(0))), FromStep("x")),
        kwargs={
            "d": DictArg((Const(0),), (FromSecret("B"),)),
            "o": ObjectArg(Const(1), {"token": FromSecret("C")}),
        },
    )

    assert secret_names(call) == {"A", "B", "C"}
