"""Chromium as Debian installs it, driven by playwright; neither downloads anything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


def missing() -> str:
    """Return what is not installed, and how it would be; "" if all is there."""
    if find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    return "" if _CHROMIUM else "Chromium is not installed: apt-get install chromium"


@contextmanager
def chromium() -> Iterator[Any]:
    """Give a browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS.split())
        try:
            yield browser
        finally:
            browser.close()
