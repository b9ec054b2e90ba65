"""The verb ``config show``: the settings in force, and where each of them comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, cast

import msgspec
import typer

from perdure.cli.endings import ExitCode
from perdure.cli.examples import epilog
from perdure.cli.flags import Verb, Verbs
from perdure.cli.session import JsonOption, StoreOption, TracebackOption

config = typer.Typer(
    cls=Verbs, help="Show the settings in force: `perdure config show`.", no_args_is_help=True
)


class SettingView(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as it holds here."""

    name: str
    value: Any
    unit: str
    default: str
    origin: str
    variable: str


@config.command("show", cls=Verb, epilog=epilog("config show"))
def show_settings(
    origin: Annotated[
        bool, typer.Option("--origin", help="Also show where each value comes from.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Show the settings in force here, with their units, defaults and variables.

    An argument outranks the environment (`PERDURE_...`), that the table `tool.perdure` of the
    nearest pyproject.toml, and that the file ~/.config/perdure/config.toml.
    """
    from perdure.cli.views import to_json

    views = _views(store)
    if as_json:
        print(to_json(views))
    else:
        _print(views, with_origin=origin)
    return ExitCode.OK


def _views(store: str | None) -> list[SettingView]:
    from perdure.settings import SETTINGS, load_settings

    settings = load_settings(store=store)
    return [
        SettingView(
            name=each.name,
            value=_shown(each.name, getattr(settings, each.name)),
            unit=each.unit,
            default=each.default,
            origin=settings.origin[each.name],
            variable=each.variable,
        )
        for each in SETTINGS
    ]


_NOT_SHOWN = "(set, not shown)"
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):([^/@]*)@")


def _shown(name: str, value: Any) -> Any:
    """Return a value as it may be shown: no key, no token, no password."""
    if name in ("key", "token") and value is not None:
        return _NOT_SHOWN
    if isinstance(value, Mapping):
        shown = dict(cast("Mapping[str, Any]", value))
        if "env_vars" in shown:
            shown["env_vars"] = dict.fromkeys(shown["env_vars"], _NOT_SHOWN)
        return shown
    if isinstance(value, tuple):
        return list(cast("tuple[str, ...]", value))
    return _PASSWORD.sub(r"\1:***@", value) if isinstance(value, str) else value


def _print(views: list[SettingView], *, with_origin: bool) -> None:
    """Print each setting as a line and what is to be known of it below; any width will do."""
    width = max(len(view.name) for view in views) + 1
    for view in views:
        print(f"{view.name:<{width}}{_text(view.value)}")
        if with_origin:
            print(f"{'':<{width}}from: {view.origin}")
        print(f"{'':<{width}}{view.unit}; {view.variable}; default: {view.default}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value).items()
        return ",".join(f"{name}={_entry(entry)}" for name, entry in entries) or "-"
    if isinstance(value, list):
        return ",".join(cast("list[str]", value)) or "-"
    return "-" if value is None else str(value)


def _entry(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
