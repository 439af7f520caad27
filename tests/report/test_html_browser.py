"""The HTML report in headless Chromium: it works by mouse, keyboard and on a phone, and runs no text.

Screenshots go to the folder that HARNESS_SCREENSHOTS names.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.report.html.page import render, stories_of
from harness.row.load import load_rows
from tests.helpers import planner
from tests.report.report_rows import several_rows

pytestmark = pytest.mark.browser

CHROMIUM = Path(os.environ.get("HARNESS_CHROMIUM", "/usr/bin/chromium"))
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
DESKTOP, PHONE = (1360, 950), (360, 780)
Opened = Callable[..., Any]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    several_rows(folder)
    out = folder / "report.html"
    out.write_text(
        render(stories_of(load_rows([folder / "specs"]), [planner(folder / "runs")], 100))
    )
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no Chromium at {CHROMIUM}; HARNESS_CHROMIUM names another")
    with api.sync_playwright() as running:
        found = running.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        yield found
        found.close()


@pytest.fixture
def opened(report: Path, browser: Any) -> Iterator[Opened]:
    """Opens the page; whatever it says on the console or asks for fails the test at its end."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def note_request(request: Any) -> None:
        if request.url.split("#")[0] != report.as_uri() and not request.url.startswith("data:"):
            wrong.append(f"asked for {request.url}")

    def open_(
        size: tuple[int, int] = DESKTOP, scheme: str = "light", at: str = "", **more: Any
    ) -> Any:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            reduced_motion="reduce",
            **more,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("request", note_request)
        page.goto(report.as_uri() + at)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def shot(tmp_path: Path) -> Callable[[Any, str], None]:
    folder = Path(os.environ.get("HARNESS_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return lambda page, name: page.screenshot(path=folder / f"report-{name}.png")


def shown_rows(page: Any) -> list[str]:
    """The matrix's rows that can be seen, by their ids, in their order."""
    rows = "#matrix-table tbody tr"
    found: list[str] = page.locator(rows).evaluate_all(
        "rows => rows.filter((row) => row.checkVisibility()).map((row) => row.cells[0].dataset.value)"
    )
    return found


def open_reader(page: Any, row: str) -> Any:
    """The row's reader, opened and begun: `toggle` comes after the click has been answered."""
    page.locator(f"#row-{row} summary", has_text="Read the outputs").click()
    reader = page.locator(f"#row-{row} [data-reader]")
    reader.locator(".item.current").wait_for(state="visible")
    return reader


def open_everything(page: Any) -> None:
    page.evaluate("for (const box of document.querySelectorAll('details')) box.open = true")


def prompt(reader: Any) -> str:
    (heading,) = reader.locator("h5").evaluate_all(
        "all => all.filter((one) => one.checkVisibility()).map((one) => one.textContent)"
    )
    return str(heading)


def test_filters_narrow_the_matrix_and_say_how_many_lines_are_left(opened: Opened) -> None:
    page = opened()
    everything = shown_rows(page)
    count = page.locator("#filters output")
    assert count.inner_text() == f"{len(everything)} of {len(everything)} lines"
    assert count.get_attribute("aria-live") == "polite"
    page.get_by_role("combobox", name="Table").select_option("study")
    assert set(shown_rows(page)) == {"held", "fell", "open", "waiting"}
    page.get_by_role("combobox", name="Verdict").select_option("not reproduced")
    assert shown_rows(page) == ["fell"]
    page.get_by_role("button", name="Clear").click()
    page.wait_for_function("n => document.querySelector('#filters output').textContent.startsWith(n)",
                           arg=f"{len(everything)} of")  # fmt: skip
    assert shown_rows(page) == everything
    page.locator("#filters").get_by_label("Search").fill("  HELD ")
    assert shown_rows(page) == ["held"]
    assert count.inner_text() == f"1 of {len(everything)} lines"
    page.locator("#filters").get_by_label("Search").fill("a row that holds")
    assert shown_rows(page) == ["held"]
    page.keyboard.press("Enter")
    assert page.url.endswith("report.html")


def test_columns_sort_up_down_and_back_with_what_has_no_value_last(opened: Opened) -> None:
    page = opened()
    first = shown_rows(page)
    head = page.get_by_role("columnheader", name="Reported")
    button = head.get_by_role("button")
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    rising = shown_rows(page)
    assert rising[:4] == ["waiting", "held", "open", "fell"]
    button.click()
    assert head.get_attribute("aria-sort") == "descending"
    assert shown_rows(page)[:4] == ["fell", "open", "held", "waiting"]
    assert set(shown_rows(page)[4:]) == set(rising[4:])
    button.click()
    assert head.get_attribute("aria-sort") is None
    assert shown_rows(page) == first
    page.get_by_role("columnheader", name="Row").get_by_role("button").press("Enter")
    assert shown_rows(page) == sorted(first)
    assert page.locator("th[aria-sort]").count() == 1


def test_a_rows_link_opens_its_story(opened: Opened) -> None:
    page = opened()
    story = page.locator("#row-open > details")
    assert story.get_attribute("open") is None
    page.get_by_role("link", name="open", exact=True).first.click()
    # `hashchange` comes after the click has been answered.
    page.locator("#row-open > details[open] > summary:focus").wait_for(state="visible")
    assert story.get_attribute("open") is not None
    again = opened(at="#row-fell")
    assert again.locator("#row-fell h4").first.is_visible()
    story = again.locator("#row-fell")
    story.get_by_role("link", name="all packages").first.click()
    again.get_by_text("click 8.5.1").wait_for(state="visible", timeout=5000)


def test_the_reader_goes_through_the_outputs_by_keys_and_by_buttons(opened: Opened) -> None:
    page = opened(at="#row-open")
    reader = open_reader(page, "open")
    assert prompt(reader) == "Prompt 0"
    assert reader.locator("output").inner_text() == "1 of 60"
    page.keyboard.press("j")
    page.keyboard.press("ArrowRight")
    assert prompt(reader) == "Prompt 2"
    assert page.evaluate("document.activeElement.className") == "item current"
    page.keyboard.press("k")
    assert prompt(reader) == "Prompt 1"
    following = reader.get_by_role("button", name="Next")
    following.click()
    assert prompt(reader) == "Prompt 2"
    for _ in range(70):
        page.keyboard.press("ArrowLeft")
    assert prompt(reader) == "Prompt 0"
    search = reader.get_by_label("Search")
    search.fill("answer 1")
    search.press("j")
    assert search.input_value() == "answer 1j"
    assert reader.locator("output").inner_text() == "none found"
    # Keys do nothing outside of the reader.
    search.fill("")
    page.locator("h1").click()
    page.keyboard.press("j")
    assert prompt(reader) == "Prompt 0"


def test_the_reader_filters_by_outcome_and_text(opened: Opened) -> None:
    page = opened(at="#row-open")
    reader = open_reader(page, "open")
    choice = reader.get_by_label("Show")
    labels = choice.locator("option").all_inner_texts()
    assert labels[0] == "all (60)"
    for label in labels[1:]:
        name, number = re.fullmatch(r"(.*) \((\d+)\)", label).groups()  # type: ignore[union-attr]
        choice.select_option(label=label)
        assert reader.locator("output").inner_text() == f"1 of {number}"
        if name in ("won", "lost", "unjudged"):
            assert name in reader.locator(".item.current header").inner_text()
    assert {"won", "lost", "unjudged", "flagged"} <= {label.split(" (")[0] for label in labels}
    choice.select_option("")
    reader.get_by_label("Search").fill("Baseline 41")
    assert prompt(reader) == "Prompt 41"


def test_no_text_of_a_model_runs_or_becomes_an_element(opened: Opened) -> None:
    page = opened(at="#row-hostile")
    reader = open_reader(page, "hostile")
    for _ in range(12):
        page.keyboard.press("j")
    open_everything(page)
    assert page.evaluate("window.ran") is None
    assert page.evaluate("document.scripts.length") == 1
    assert page.locator("img, iframe, object, i, b b").count() == 0
    assert "<script>window.ran = 1</script>" in reader.locator(".item.current").inner_text()


def test_a_script_that_got_in_would_not_run(report: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    page.evaluate("""() => {
        document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.ran = 1'>");
        const made = document.createElement("script");
        made.textContent = "window.ran = 1";
        document.body.append(made);
    }""")
    page.wait_for_timeout(100)
    assert page.evaluate("window.ran") is None
    page.close()


def test_everything_can_be_read_without_a_script(report: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("#matrix-table tbody tr").first.is_visible()
    for name in ("#filters", "#theme", "thead button", "[data-open]"):
        assert not page.locator(name).first.is_visible()
    page.locator("#row-open > details > summary").click()
    page.locator("#row-open summary", has_text="Read the outputs").click()
    items = page.locator("#row-open .item")
    assert items.count() == 60
    assert items.first.is_visible()
    assert items.last.is_visible()
    assert not page.locator("#row-open .toolbar").is_visible()
    context.close()


def test_the_page_never_scrolls_sideways(opened: Opened) -> None:
    page = opened(PHONE)
    for _ in range(2):
        for width in (320, 360, 600, 1360):
            page.set_viewport_size({"width": width, "height": 780})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        open_everything(page)


@pytest.mark.parametrize("width", [1300, 1360, 1500])
def test_on_a_desktop_the_matrix_has_all_its_columns_in_sight(opened: Opened, width: int) -> None:
    box = opened((width, 900)).locator("#matrix .scroll")
    assert box.evaluate("one => one.scrollWidth <= one.clientWidth")


def test_where_the_matrix_scrolls_its_edge_says_so(opened: Opened) -> None:
    box = opened((1000, 900)).locator("#matrix .scroll")
    assert box.evaluate("one => one.scrollWidth > one.clientWidth")
    assert "scroll" in box.evaluate("one => getComputedStyle(one).backgroundAttachment")


def test_on_a_phone_the_lengths_of_the_answers_are_seen_whole(opened: Opened) -> None:
    page = opened(PHONE)
    open_everything(page)
    boxes = page.get_by_role("region", name="Lengths", exact=True)
    assert boxes.count() > 1
    for box in boxes.all():
        assert box.evaluate("one => one.scrollWidth <= one.clientWidth")


def test_every_heading_of_the_matrix_stands_at_the_same_height(opened: Opened) -> None:
    heads = opened().locator("#matrix-table thead th")
    middle = """all => all.map((one) => {
      const words = document.createRange();
      words.selectNodeContents(one.querySelector("button") ?? one);
      const box = words.getBoundingClientRect();
      return box.top + box.height / 2;
    })"""
    heights = heads.evaluate_all(middle)
    assert len(heights) == 11
    assert max(heights) - min(heights) < 2


def test_on_a_phone_the_matrix_is_still_a_table_to_a_screen_reader(opened: Opened) -> None:
    tree = opened(PHONE).locator("#matrix").aria_snapshot()
    assert re.search(r"- table", tree)
    assert re.search(r"- columnheader", tree)
    assert re.search(r'- rowheader "held', tree)
    assert re.search(r"- cell", tree)


def test_on_a_phone_what_sorts_the_lines_says_so_to_eyes_and_to_a_screen_reader(
    opened: Opened,
) -> None:
    page = opened((400, 800))
    heads = page.locator("#matrix-table thead tr")
    assert '- row "Sort by"' in page.locator("#matrix").aria_snapshot()
    label = "one => getComputedStyle(one, '::before').content"
    assert heads.evaluate(label) == '"Sort by"'
    page.set_viewport_size({"width": 1280, "height": 800})
    assert heads.evaluate(label) == "none"


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_every_control_has_a_name_and_headings_go_down_one_at_a_time(
    opened: Opened, size: tuple[int, int]
) -> None:
    page = opened(size)
    open_everything(page)
    tree = page.locator("body").aria_snapshot()
    nameless = r"- (?:button|link|combobox|searchbox|textbox|img|region|search)(?=:|$| \[)"
    assert re.findall(nameless, tree, re.MULTILINE) == []
    for role in ("banner", "navigation", "main", "contentinfo", "search"):
        assert re.search(rf"- {role}\b", tree), role
    levels = [int(level) for level in re.findall(r"- heading .*\[level=(\d)\]", tree)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert [b for a, b in itertools.pairwise(levels) if b > a + 1] == []


def test_the_keyboard_reaches_everything_in_order_beginning_with_the_skip_link(
    opened: Opened,
) -> None:
    page = opened()
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the results")
    assert skip.evaluate("one => one === document.activeElement")
    assert skip.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    page.locator(":target").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.filter") == "table"
    style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert style == "solid"
    tops = []
    for _ in range(40):
        tops.append(page.evaluate("document.activeElement.getBoundingClientRect().top + scrollY"))
        page.keyboard.press("Tab")
    rows = [round(top / 60) for top in tops]
    assert rows == sorted(rows) or sum(a > b for a, b in itertools.pairwise(rows)) <= 2


CONTRAST = """() => {
  const parse = (text) => {
    const found = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith("color(srgb") ? [...found.slice(0, 3).map((c) => c * 255), found[3] ?? 1]
      : [found[0], found[1], found[2], found[3] ?? 1];
  };
  const over = (above, below) => above.slice(0, 3)
    .map((c, i) => c * above[3] + below[i] * (1 - above[3])).concat(1);
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      layers.push(parse(getComputedStyle(at).backgroundColor));
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const wrong = [];
  let seen = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("script, title, desc, option")) continue;
    const style = getComputedStyle(element);
    const ground = behind(element);
    const ink = over(parse(element.closest("svg") ? style.fill : style.color), ground);
    const [a, b] = [light(ink), light(ground)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    seen += 1;
    if (ratio < least) wrong.push(`${ratio.toFixed(2)} ${element.outerHTML.slice(0, 90)}`);
  }
  return { seen, wrong: [...new Set(wrong)].slice(0, 10) };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_colour_schemes(opened: Opened, scheme: str) -> None:
    page = opened(scheme=scheme)
    open_everything(page)
    found = page.evaluate(CONTRAST)
    assert found["seen"] > 200
    assert found["wrong"] == []


def test_colours_follow_the_system_until_they_are_chosen(opened: Opened) -> None:
    def is_dark(page: Any) -> bool:
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", ground)[:3])) < 200

    light, dark = opened(scheme="light"), opened(scheme="dark")
    assert (is_dark(light), is_dark(dark)) == (False, True)
    button = light.get_by_role("button", name="Colours")
    button.click()
    assert (button.inner_text(), is_dark(light)) == ("Colours: light", False)
    button.click()
    assert (button.inner_text(), is_dark(light)) == ("Colours: dark", True)
    light.reload()
    assert is_dark(light)
    button.click()
    assert (button.inner_text(), is_dark(light)) == ("Colours: as the system", False)


def test_figures_have_a_title_and_words(opened: Opened) -> None:
    page = opened(at="#row-trained")
    tree = page.locator("#row-trained").aria_snapshot()
    assert re.search(r'img "Win rate .*95 % interval \d', tree)
    assert re.search(r'img "Loss curve .*at step 300', tree)


def test_on_paper_there_are_no_controls(opened: Opened) -> None:
    page = opened(scheme="dark")
    page.emulate_media(media="print")
    assert not page.locator("#filters").is_visible()
    assert not page.locator("#theme").is_visible()
    assert page.locator("#matrix-table").is_visible()
    ink = page.evaluate("getComputedStyle(document.querySelector('h1')).color")
    assert sum(map(int, re.findall(r"\d+", ink)[:3])) < 200


def test_screenshots_are_kept(opened: Opened, shot: Callable[[Any, str], None]) -> None:
    shot(opened(), "light")
    shot(opened(scheme="dark", at="#row-trained"), "dark")
    shot(opened(PHONE, device_scale_factor=2), "phone")
    page = opened(at="#row-open")
    reader = open_reader(page, "open")
    page.keyboard.press("j")
    reader.evaluate("one => one.scrollIntoView()")
    shot(page, "reader")
