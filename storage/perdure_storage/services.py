"""What object services say when they refuse something, and what people can do about it."""

from __future__ import annotations

import re

_STRANGERS = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "UnauthorizedSSOTokenError",
        "TokenRetrievalError",
    }
)
_FULL = frozenset({"XMinioStorageFull", "QuotaExceeded", "InsufficientStorage", "507"})
_SECRETS = (
    (re.compile(r"//[^/\s@]+@"), "//***@"),
    (
        re.compile(
            r"(?i)\b(x-amz-signature|x-amz-credential|x-amz-security-token|awsaccesskeyid|signature"
            r"|sig|access_token|secret|password|token)=[^&\s'\"]+"
        ),
        r"\1=***",
    ),
)


def code_of(error: BaseException) -> str:
    """Return the code in a service's answer, as ``"NoSuchKey"``; empty if there is none."""
    for each in (error, error.__cause__):
        answer = getattr(each, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code", ""))
    return ""


def is_full(error: BaseException) -> bool:
    """Say whether a service has no room for more."""
    return code_of(error) in _FULL


def remedy_of(error: BaseException) -> str:
    """Return what people can do about a refusal; empty if it is none, or time mends it."""
    code = code_of(error) or type(error).__name__
    if code in _STRANGERS:
        return (
            "the service does not know who asks: see to the credentials of this machine"
            " (AWS_PROFILE, AWS_ACCESS_KEY_ID, or its role)"
        )
    if code == "RequestTimeTooSkewed":
        return "the clock of this machine is wrong: set it"
    if code == "NoSuchBucket":
        return "make the bucket, or name another one"
    if isinstance(error, PermissionError) and (code_of(error) or error.errno is None):
        return (
            "who asks may not do that there: it needs to get, put, delete and list objects"
            " (s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload,"
            " s3:ListBucket; without the last one even what is missing is answered so)"
        )
    return ""


def masked(text: str) -> str:
    """Return a driver's text without what is secret in the URLs that it quotes."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
