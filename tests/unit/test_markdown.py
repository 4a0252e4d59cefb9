"""From a page of docs/ to HTML: no foreign markup, links led on, headings with anchors."""

import pytest

from api.dashboard.markdown import anchor_of, render


def lead(target: str) -> str | None:
    return f"/docs/{target}" if target.startswith("there") else None


def html(text: str) -> str:
    prose = render(text, lead)
    return prose.title + prose.rest


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", "a <b onclick='x'>word</b>", "<!-- a\n--> <i>b</i>"],
)
def test_markup_is_shown_and_not_obeyed(text):
    shown = html(text)

    assert not any(f"<{tag}" in shown for tag in ("script", "b", "i", "!"))


def test_a_link_that_would_run_a_script_is_none():
    assert "href" not in html("[go](javascript:alert(1))")


def test_notes_to_editors_are_left_out():
    assert html("<!-- made by a program -->\nwords") == "<p>words</p>\n"


def test_a_relative_link_leads_to_where_the_page_is():
    assert '<a href="/docs/there#part">on</a>' in html("[on](there#part)")


def test_words_stay_of_a_link_to_what_is_not_here():
    shown = html("see [the code](../mini/world.py) now")

    assert ">the code</span> now" in shown
    assert "href" not in shown


def test_a_picture_comes_from_where_it_is():
    assert '<img src="/docs/there.png" alt="a boat" />' in html("![a boat](there.png)")


def test_headings_can_be_linked_to_even_when_two_are_the_same():
    page = render("# Top\n\n## `queue_full`\n\n## Next: *one*\n\n## Next: *one*\n", lead)

    assert [one.anchor for one in page.headings] == ["top", "queue_full", "next-one", "next-one-1"]
    assert page.title == '<h1 id="top">Top</h1>\n'
    assert page.rest.startswith('<h2 id="queue_full"><code>queue_full</code><a class="here" href=')


def test_an_anchor_is_made_as_code_hosts_make_it():
    assert anchor_of("`GET /v1/videos/{video_id}`") == "get-v1videosvideo_id"


def test_code_is_coloured_by_classes_and_escaped():
    shown = html('```python\nprint("<b>")\n```\n')

    assert '<span class="tok-s2">"&lt;b&gt;"</span>' in shown
    assert "style=" not in shown


@pytest.mark.parametrize("language", ["", "text", "no-such-language"])
def test_code_of_no_language_stays_as_it_is(language):
    assert "<code>a &lt; b\n</code>" in html(f"```{language}\na < b\n```\n")


def test_a_table_can_be_scrolled_by_keys_and_has_no_style():
    shown = html("| a | b |\n|---|--:|\n| 1 | 2 |\n")

    assert '<div class="wide" tabindex="0"><table>' in shown
    assert '<td class="end">2</td>' in shown
    assert "style=" not in shown
