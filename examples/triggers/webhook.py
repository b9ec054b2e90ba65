"""Build what was pushed: a webhook that nobody else can send, answered with the id of its run.

    export HOOK_KEY=$(python examples/triggers/webhook.py key)
    perdure up examples/triggers/webhook.py
    python examples/triggers/webhook.py push perdure main    # in another terminal, same HOOK_KEY

    perdure trigger arrivals pushed

The sender signs the time and the body with the key, as Standard Webhooks has it: a body that was
changed, a key that is wrong and a delivery of last week are refused. The same delivery sent again
is answered with the same run. To change the key put the new one into HOOK_KEY and the old one
into HOOK_KEY_OLD: both are taken until you unset the latter.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request

from perdure import Trigger, Webhook, event, task, workflow

URL = os.environ.get("HOOK_URL", "http://127.0.0.1:7373/v1/hooks/pushed")


@task
def check_out(repository: str, branch: str) -> list[str]:
    """Fetch the sources; here they are made up, so that nothing is needed."""
    return [f"{repository}/{name}.py@{branch}" for name in ("alpha", "beta")]


@task
def compile_all(files: list[str]) -> str:
    """Compile them."""
    return f"compiled {len(files)} files of {files[0].partition('/')[0]}"


@workflow
def build(repository: str, branch: str = "main") -> str:
    """Build one branch of a repository."""
    return compile_all.bind(check_out.bind(repository, branch))


pushed = Trigger(
    "pushed",
    build.options(tags={"by": "push"}),
    on=Webhook(keys=["HOOK_KEY", "HOOK_KEY_OLD"]),
    where=event.body.branch.is_in(["main", "release"]),
    inputs={"repository": event.body.repository.name, "branch": event.body.branch},
)


def signed(key: str, delivery: str, body: bytes) -> dict[str, str]:
    """Return the headers by which a body is known to come from who has the key."""
    sent = str(int(time.time()))
    secret = base64.b64decode(key.removeprefix("whsec_"))
    mac = hmac.digest(secret, f"{delivery}.{sent}.".encode() + body, hashlib.sha256)
    return {
        "content-type": "application/json",
        "webhook-id": delivery,
        "webhook-timestamp": sent,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def push(repository: str, branch: str, delivery: str = "") -> str:
    """Send what a forge sends when somebody pushes; return the answer."""
    body = json.dumps({"repository": {"name": repository}, "branch": branch}).encode()
    headers = signed(os.environ["HOOK_KEY"], delivery or f"msg_{secrets.token_hex(8)}", body)
    request = urllib.request.Request(URL, data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as refused:
        sys.exit(f"refused with {refused.code}: {refused.read().decode()}")


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    if verb == "key":
        print(f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}")
    else:
        print(push(*words))
