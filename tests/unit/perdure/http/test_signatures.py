"""Signatures of webhooks: what proves who sent it, and what does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from perdure.http.signatures import SignatureWrong, key_of, sign, verify
from perdure_scheduler.conditions import Webhook

STANDARD = Webhook(keys=("KEY",))
GITHUB = Webhook(keys=("KEY",), scheme="github")
KEY, OTHER = b"a-key-of-sixteen", b"another-key-of-it"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BODY = b'{"test": 2432232314}'


def signed(
    *, at: datetime = NOW, delivery: str = "d1", body: bytes = BODY, by: bytes = KEY
) -> dict[str, str]:
    timestamp = f"{at.timestamp():.0f}"
    return {
        "webhook-id": delivery,
        "webhook-timestamp": timestamp,
        "webhook-signature": sign(by, delivery, timestamp, body),
    }


def test_example_of_the_specification_has_the_signature_that_it_gives() -> None:
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    delivery, timestamp = "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330"

    signature = sign(key, delivery, timestamp, BODY)

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    headers = {
        "webhook-id": delivery,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1a,abc {signature}",
    }
    then = datetime.fromtimestamp(int(timestamp), UTC)
    assert verify(STANDARD, [key], headers, BODY, then) == delivery


def test_example_of_github_has_the_signature_that_it_gives() -> None:
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    headers = {"x-hub-signature-256": f"sha256={digest}", "x-github-delivery": "72d3162e"}

    delivery = verify(GITHUB, [b"It's a Secret to Everybody"], headers, b"Hello, World!", NOW)

    assert delivery == "72d3162e"


def test_either_of_two_keys_signs() -> None:
    assert verify(STANDARD, [OTHER, KEY], signed(), BODY, NOW) == "d1"
    assert verify(STANDARD, [OTHER, KEY], signed(by=OTHER), BODY, NOW) == "d1"


@pytest.mark.parametrize("off", [timedelta(minutes=5), timedelta(minutes=-5)])
def test_time_within_the_window_is_taken(off: timedelta) -> None:
    assert verify(STANDARD, [KEY], signed(at=NOW + off), BODY, NOW) == "d1"


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({**signed(), "webhook-id": "d2"}, "none that is of this body"),
        ({**signed(), "webhook-timestamp": "1772366401"}, "none that is of this body"),
        ({**signed(), "webhook-timestamp": "soon"}, "no whole number"),
        ({**signed(), "webhook-timestamp": "-1772366401"}, "no whole number"),
        ({**signed(), "webhook-signature": ""}, "webhook-signature is missing"),
        ({**signed(), "webhook-signature": "v1,"}, "none that is"),
        ({**signed(), "webhook-signature": signed()["webhook-signature"][3:]}, "none that is"),
        (signed(by=b"no-key-of-this-one"), "none that is of this body"),
        (signed(body=b"{}"), "none that is of this body"),
        (signed(at=NOW - timedelta(minutes=6)), "360 s ago"),
        (signed(at=NOW + timedelta(minutes=6)), "360 s ahead"),
        ({}, "webhook-id is missing"),
    ],
)
def test_what_proves_nothing_is_refused(headers: dict[str, str], says: str) -> None:
    with pytest.raises(SignatureWrong, match=says):
        verify(STANDARD, [KEY], headers, BODY, NOW)


@pytest.mark.parametrize(
    "headers", [{}, {"x-hub-signature-256": "sha256="}, {"x-hub-signature-256": "sha1=ab"}]
)
def test_what_proves_nothing_is_refused_of_github_too(headers: dict[str, str]) -> None:
    with pytest.raises(SignatureWrong):
        verify(GITHUB, [KEY], headers, BODY, NOW)


def test_key_that_is_no_base64_is_refused() -> None:
    with pytest.raises(ValueError, match="goes on in base64"):
        key_of("whsec_!!")
    assert key_of("plain") == b"plain"
