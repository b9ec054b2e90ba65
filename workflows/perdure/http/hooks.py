"""The operation that takes in webhooks: signed requests that a trigger waits for."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import msgspec

from perdure.errors import SecretMissing
from perdure.http.beside import Check
from perdure.http.operations import (
    IDEMPOTENCY_KEY,
    Asked,
    Nothing,
    Operation,
    Proof,
    Room,
    Said,
    idempotency_key,
    unfit,
)
from perdure.http.problems import Refused
from perdure.http.service import Failed, Service
from perdure.http.signatures import SignatureWrong, key_of, verify
from perdure.worker.secrets import resolve_secret
from perdure_scheduler.arrival import Arrival
from perdure_scheduler.arriving import Decision, Verdict, stored_key
from perdure_scheduler.conditions import AllOf, Webhook
from perdure_scheduler.intake import Brought
from perdure_scheduler.trigger import Trigger

log = logging.getLogger(__name__)


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a delivery; the same one again is told the same.

    Attributes:
        decision: fired, filtered, held or deferred, as `perdure trigger arrivals` says it.
        reason: why, for people.
        run_id: the run that it made, or has a part in.
        is_new: whether it was decided now.
    """

    decision: str
    reason: str
    run_id: str | None
    is_new: bool


def receive_hook(service: Service, asked: Asked[Nothing, Nothing]) -> Said:
    """Take in a delivery; when that is answered, it counts, and its run exists."""
    name = asked.path["trigger"]
    record = service.client.runtime.store.triggers.find_trigger(name)
    if record is None:
        raise _no_hook(name)
    trigger = service.intake.definition(record)
    condition, webhook = _webhook_of(trigger, asked.path.get("condition"))
    delivery = _verified(service, trigger, webhook, asked)
    arrival = Arrival(key=delivery, facts=_facts(service, webhook, delivery, asked))
    problem = _problem_with(service, trigger, condition, arrival)
    if problem:
        _refuse(service, trigger, condition, delivery, problem)
    brought = Brought(
        arrivals=((condition, arrival),), troubles={condition: ""}, digest=record.digest
    )
    (receipt,) = service.intake.take(name, brought)
    value = Received(
        decision=receipt.decision,
        reason=receipt.reason,
        run_id=receipt.run_id,
        is_new=receipt.is_new,
    )
    return Said(value=value, status=HTTPStatus.ACCEPTED)


def _no_hook(name: str) -> Refused:
    return Refused(
        HTTPStatus.NOT_FOUND,
        "HookNotFound",
        f"no trigger waits for webhooks at {name!r}: `perdure trigger ls` lists them all",
    )


def _webhook_of(trigger: Trigger, asked: str | None) -> tuple[str, Webhook]:
    """Return the webhook that is meant, with the name of its condition.

    Of several in ``all_of`` or ``any_of`` each has a route of its own.
    """
    there = {name: each for name, each in trigger.parts.items() if isinstance(each, Webhook)}
    if asked is None and len(there) == 1:
        return next(iter(there.items()))
    if asked is not None and asked in there:
        return asked, there[asked]
    if not there or asked is not None:
        raise _no_hook(trigger.name if asked is None else f"{trigger.name}/{asked}")
    routes = ", ".join(f"/v1/hooks/{trigger.name}/{name}" for name in there)
    raise Refused(
        HTTPStatus.NOT_FOUND,
        "HookNotFound",
        f"trigger {trigger.name!r} waits for several webhooks: each has a route, {routes}",
    )


# --- who sent it --------------------------------------------------------------------------------
def _verified(service: Service, trigger: Trigger, webhook: Webhook, asked: Asked[Any, Any]) -> str:
    """Return the id of a delivery that is signed as it should be."""
    keys = _keys(trigger, webhook)
    now = service.client.runtime.clock.now()
    try:
        delivery = verify(webhook, keys, asked.headers, asked.raw, now)
    except SignatureWrong as wrong:
        log.warning("a request to the webhook of trigger %s: %s", trigger.name, wrong)
        raise Refused(HTTPStatus.UNAUTHORIZED, "SignatureWrong", str(wrong)) from None
    delivery = delivery or idempotency_key(asked)
    if delivery is None:
        raise unfit(
            "the delivery has no id, so nobody could tell when it comes again: send one in the "
            "header X-GitHub-Delivery or Idempotency-Key"
        )
    return delivery


def _keys(trigger: Trigger, webhook: Webhook) -> list[bytes]:
    """Return the keys that are set. Without any nobody can prove anything."""
    found = []
    for name in webhook.keys:
        try:
            found.append(key_of(resolve_secret(name)))
        except SecretMissing:
            log.debug("the key %s of trigger %s is not set", name, trigger.name)
        except ValueError as error:
            log.error("the key %s of trigger %s is no good: %s", name, trigger.name, error)
    if not any(found):
        log.error(
            "trigger %s has no key: set %s where `perdure up` runs",
            trigger.name,
            " or ".join(webhook.keys),
        )
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "NoKey",
            "this webhook has no key yet; the log of `perdure up` says which is to be set",
        )
    return [key for key in found if key]


# --- what it says -------------------------------------------------------------------------------
def _facts(
    service: Service, webhook: Webhook, delivery: str, asked: Asked[Any, Any]
) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(asked.raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(
            HTTPStatus.BAD_REQUEST, "BadRequest", f"the body is no JSON: {error}"
        ) from None
    return {
        "body": body,
        "headers": {name: asked.headers[name] for name in webhook.headers if name in asked.headers},
        "delivery": delivery,
        "received_at": service.client.runtime.clock.now().isoformat(),
    }


def _problem_with(service: Service, trigger: Trigger, condition: str, arrival: Arrival) -> str:
    """Return why no run can be made of a delivery that is new; "" if one can.

    One that was taken in before is not looked at again: what it came to stands.
    """
    key = stored_key(trigger.on, condition, arrival.key)
    if service.client.runtime.store.triggers.known(trigger.name, [key]):
        return ""
    decisions = service.intake.foresee(trigger.name, [arrival], condition=condition)
    for decision in decisions:
        if decision.verdict is Verdict.REFUSED:
            return decision.reason
        if decision.run is not None and not isinstance(trigger.on, AllOf):
            return _misfit(service, trigger, decision)
    return ""


def _misfit(service: Service, trigger: Trigger, decision: Decision) -> str:
    """Return why the workflow does not take what a delivery says; "" if it does.

    A module that cannot be imported now is no reason to send anybody away: the run waits for it.
    """
    run = trigger.run
    if run.plan_digest is not None or run.origin is None or decision.run is None:
        return ""
    question = Check(origin=run.origin, constants=run.inputs, facts=decision.run.inputs)
    try:
        service.beside(question, type(None))
    except Failed as failed:
        if failed.problem.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            return failed.problem.detail
        log.warning("trigger %s: inputs are not checked: %s", trigger.name, failed.problem.detail)
    return ""


def _refuse(
    service: Service, trigger: Trigger, condition: str, delivery: str, problem: str
) -> None:
    """Send a delivery away, and let `perdure trigger show` say why.

    It is not kept: when it comes again after the code or the trigger was mended, it counts.
    """
    service.intake.note_trouble(trigger.name, condition, f"delivery {delivery}: {problem}")
    raise unfit(problem)


_HEADERS = {
    "webhook-id": "Of the standard scheme: names the delivery; one of the same id counts once.",
    "webhook-timestamp": "Of the standard scheme: when it was signed, seconds since 1970.",
    "webhook-signature": "Of the standard scheme: v1,BASE64 of HMAC-SHA256 over ID.TIMESTAMP.BODY; "
    "several are parted by spaces.",
    "x-hub-signature-256": "Of the scheme of GitHub: sha256=HEX of HMAC-SHA256 over the body.",
    "x-github-delivery": "Of the scheme of GitHub: names the delivery.",
    IDEMPOTENCY_KEY: "Names the delivery where the scheme of GitHub has no id.",
}


def _operation(name: str, path: str, summary: str) -> Operation:
    return Operation(
        name=name,
        method="POST",
        path=path,
        summary=summary,
        act=receive_hook,
        says=Received,
        status=HTTPStatus.ACCEPTED,
        headers=_HEADERS,
        errors=(HTTPStatus.NOT_FOUND,),
        proof=Proof.SIGNATURE,
        room=Room.CHILD,
    )


OPERATIONS = (
    _operation("receiveHook", "/v1/hooks/{trigger}", "Take in a signed webhook of a trigger."),
    _operation(
        "receiveHookOf",
        "/v1/hooks/{trigger}/{condition}",
        "Take in a signed webhook of one condition of a trigger.",
    ),
)
