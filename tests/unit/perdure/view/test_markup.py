from __future__ import annotations

import pytest

from perdure.view.markup import Asset, element, escape


def test_text_is_escaped_and_elements_are_not() -> None:
    made = element("p", "a < b & c", element("b", '"it\'s"'))

    assert str(made) == "<p>a &lt; b &amp; c<b>&quot;it&#39;s&quot;</b></p>"


def test_attribute_cannot_be_left() -> None:
    made = element("i", class_='x" onclick="alert(1)', data_step="a'>b")

    assert str(made) == '<i class="x&quot; onclick=&quot;alert(1)" data-step="a&#39;&gt;b"></i>'


def test_attribute_without_a_value_is_there_or_not() -> None:
    made = element("input", hidden=True, checked=False, title=None, width=1.5)

    assert str(made) == '<input hidden width="1.5">'


@pytest.mark.parametrize(
    ("tag", "attributes"),
    [
        ("a", {"href": "javascript:alert(1)"}),
        ("a", {"href": "https://example.com"}),
        ("img", {"src": "https://example.com/x.png"}),
        ("img", {"src": "data:image/svg+xml;base64,AAAA"}),
        ("p", {"onclick": "alert(1)"}),
        ("p", {"style": "background: url(//example.com)"}),
        ("iframe", {"srcdoc": "<script>"}),
        ("p><script", {}),
    ],
)
def test_what_could_run_or_load_something_is_refused(tag: str, attributes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"could run|link|figure|no name"):
        element(tag, **attributes)


@pytest.mark.parametrize("tag", ["script", "style"])
def test_program_is_one_of_our_own(tag: str) -> None:
    with pytest.raises(ValueError, match="our own assets"):
        element(tag, "alert(1)")

    assert str(element(tag, Asset("a < b"))) == f"<{tag}>a < b</{tag}>"


def test_what_a_terminal_would_obey_and_half_characters_are_marked() -> None:
    assert escape("\x1b[31mred\u202e\ud800\x00\n\tend") == "�[31mred���\n\tend"
