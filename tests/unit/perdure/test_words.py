from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from perdure import words

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0, "0 ms"),
        (0.0123, "12 ms"),
        (3.44, "3.4 s"),
        (60, "1 min"),
        (306, "5 min 6 s"),
        (7 * 3600 + 480, "7 h 8 min"),
        (9 * 86400 + 3700, "9 d 1 h"),
    ],
)
def test_duration_is_said_in_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("ago", "text"),
    [(-5, "now"), (0.5, "now"), (59, "59 s ago"), (125, "2 min ago"), (86400 * 3, "3 d ago")],
)
def test_age_is_said_in_its_largest_unit(ago: float, text: str) -> None:
    assert words.age(NOW - timedelta(seconds=ago), NOW) == text


def test_one_line_has_no_breaks_and_keeps_to_its_width() -> None:
    assert words.one_line("a\n  b\tc", 10) == "a b c"
    assert words.one_line("abcdefgh", 5) == "abcd…"


def test_failure_is_told_as_its_reader_needs_it() -> None:
    assert words.failure("builtins.ValueError", "no") == "ValueError: no"
    assert words.failure("shop.Refused", "no", "fit") == "shop.Refused: no"
    assert words.failure("builtins.KeyboardInterrupt", "") == "KeyboardInterrupt"


def test_failure_of_our_own_says_neither_its_class_nor_the_step_again() -> None:
    assert words.failure("perdure.errors.WorkerLost", "fit: it died", "fit") == "it died"
    assert words.failure("perdure.errors.WorkerLost", "fit: it died") == "fit: it died"


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [(0, "step", "0 steps"), (1, "retry", "1 retry"), (10_000, "retry", "10,000 retries")],
)
def test_things_are_counted_with_their_plural(number: int, noun: str, said: str) -> None:
    assert words.count_of(number, noun) == said


@pytest.mark.parametrize(
    ("per_second", "said"),
    [(4102.4, "4,102 steps/s"), (2.49, "2.5 steps/s"), (0.2, "12.0 steps/min")],
)
def test_rate_is_told_in_the_unit_that_fits(per_second: float, said: str) -> None:
    assert words.rate(per_second, "steps") == said


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (4 << 30, "4.0 GiB"),
        (3 << 50, "3072.0 TiB"),
    ],
)
def test_sizes_have_binary_units(size_bytes: int, said: str) -> None:
    assert words.size(size_bytes) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("short\nof two lines", "short\nof two lines"),
        ("x" * 10_000, "x" * 600 + "… (9,400 more characters)"),
        ("line\n" * 100, "line\n" * 7 + "line… (461 more characters)"),
    ],
    ids=["short", "long", "of many lines"],
)
def test_long_text_is_told_by_its_beginning(text: str, said: str) -> None:
    assert words.beginning(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain ünï 数据", "plain ünï 数据"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://x\x1b\\link", "link"),
        ("a\tb", "a    b"),
        ("bell\x07\x1b", "bell��"),
        ("two\nlines", "two�lines"),
    ],
)
def test_nothing_printable_is_left_for_a_terminal_to_obey(text: str, said: str) -> None:
    assert words.printable(text) == said
