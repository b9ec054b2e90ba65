"""Whether a request was signed by who has a key: pure.

Source: the Standard Webhooks specification 1.0 (standardwebhooks.com), and GitHub's "Validating
webhook deliveries".
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from perdure_scheduler.conditions import Webhook

_KEY_PREFIX = "whsec_"


class SignatureWrong(Exception):
    """A request does not prove that it is from who has a key; says which part is not right."""


def verify(
    webhook: Webhook,
    keys: Sequence[bytes],
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
) -> str | None:
    """Return the id of a delivery that is signed with one of the keys, or None if it has none.

    Args:
        webhook: which scheme, and how far its time may be from ours.
        keys: any of them signs.
        headers: by lower-case name.
        body: as it came.
        now: our time.

    Raises:
        SignatureWrong: it is not, or it was signed too long ago.
    """
    if webhook.scheme == "github":
        return _verify_github(keys, headers, body)
    return _verify_standard(keys, headers, body, now, webhook.window)


def key_of(text: str) -> bytes:
    """Return a key as bytes: after ``whsec_`` it is base64, otherwise it is text.

    Raises:
        ValueError: it is neither.
    """
    if not text.startswith(_KEY_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_KEY_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"a key that begins with {_KEY_PREFIX} goes on in base64") from None


def sign(key: bytes, delivery: str, timestamp: str, body: bytes) -> str:
    """Return the signature of the standard scheme, ``v1,...``."""
    signed = b".".join((delivery.encode(), timestamp.encode(), body))
    return f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"


def _verify_standard(
    keys: Sequence[bytes],
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
    window: timedelta,
) -> str:
    delivery = _header(headers, "webhook-id")
    timestamp = _header(headers, "webhook-timestamp")
    given = _header(headers, "webhook-signature").split()
    if not timestamp.isdecimal() or len(timestamp) > 12:
        raise SignatureWrong("webhook-timestamp is no whole number of seconds since 1970")
    # What is signed is checked before what it says: a time that nobody signed says nothing.
    wanted = [sign(key, delivery, timestamp, body) for key in keys]
    if not _any_equal(given, wanted):
        raise SignatureWrong("webhook-signature has none that is of this body and one of the keys")
    off_s = int(timestamp) - now.timestamp()
    if abs(off_s) > window.total_seconds():
        when = "ago" if off_s < 0 else "ahead"
        raise SignatureWrong(
            f"it was signed {abs(off_s):.0f} s {when}, and {window.total_seconds():.0f} s are "
            "allowed: sign it anew; is one of the clocks wrong?"
        )
    return delivery


def _verify_github(keys: Sequence[bytes], headers: Mapping[str, str], body: bytes) -> str | None:
    given = _header(headers, "x-hub-signature-256")
    wanted = [f"sha256={hmac.digest(key, body, 'sha256').hex()}" for key in keys]
    if not _any_equal([given], wanted):
        raise SignatureWrong("x-hub-signature-256 is not of this body and one of the keys")
    return headers.get("x-github-delivery") or None


def _header(headers: Mapping[str, str], name: str) -> str:
    found = headers.get(name, "")
    if not found:
        raise SignatureWrong(f"the header {name} is missing")
    return found


def _any_equal(given: Sequence[str], wanted: Sequence[str]) -> bool:
    """Say whether a given signature is wanted; how long that takes tells nothing about them."""
    found = False
    for each in given:
        for one in wanted:
            found |= hmac.compare_digest(each.encode(), one.encode())
    return found
