"""Secrets stand for text; order without data."""

from perdure import Secret, task, workflow


@task
def upload(token: str, rows: list[int]) -> None:
    print(token, rows)


@task
def notify(channel: str, tokens: list[str]) -> None:
    print(channel, tokens)


@workflow
def publish(rows: list[int]) -> None:
    done = upload.bind(Secret("TOKEN"), rows)
    notify.options(after=done).bind("#data", tokens=[Secret("CHAT_TOKEN")])
