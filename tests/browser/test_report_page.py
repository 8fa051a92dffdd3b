"""The page in a browser: it runs, asks for nothing, and serves mouse, keyboard, paper and phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from specbench.report.html import gather, render
from tests.unit.report.pages import picture_results, text_results

HERE = Path(__file__).parent
CONTRAST = (HERE / "contrast.js").read_text(encoding="utf-8")
UNNAMED = (HERE / "unnamed.js").read_text(encoding="utf-8")


class _Visit:
    """One open page with everything that it said and asked for."""

    def __init__(self, page, path: Path) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(path.as_uri())


@pytest.fixture(scope="module")
def text_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    path = folder / "report.html"
    path.write_text(render(gather(text_results(folder))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def picture_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    path = folder / "report.html"
    path.write_text(render(gather(picture_results(folder))), encoding="utf-8")
    return path


@pytest.fixture
def visit(browser):
    """Open a page in a context of its own; whatever was done to it, it may report no error."""
    contexts, visits = [], []

    def open_page(path: Path, **options) -> _Visit:
        options.setdefault("viewport", {"width": 1280, "height": 900})
        context = browser.new_context(**options)
        contexts.append(context)
        visits.append(_Visit(context.new_page(), path))
        return visits[-1]

    yield open_page
    said = [message for opened in visits for message in opened.said]
    for context in contexts:
        context.close()
    assert said == []


def column(page, place: int) -> list[str]:
    return page.locator(f"#headline tbody tr > :nth-child({place}):visible").all_inner_texts()


@pytest.mark.parametrize("name", ["text_page", "picture_page"])
def test_no_error_and_no_request(visit, request, name):
    path = request.getfixturevalue(name)
    opened = visit(path)
    opened.page.locator("details").evaluate_all("all => all.forEach(item => { item.open = true; })")
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("data:")] == [path.as_uri()]
    assert opened.page.evaluate("typeof alerted") == "undefined"


def test_pictures_are_seen(visit, picture_page):
    page = visit(picture_page).page
    widths = page.locator("#outputs img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert widths
    assert set(widths) == {24}


def test_a_click_sorts_and_says_so(visit, text_page):
    page = visit(text_page).page
    before = column(page, 1)
    assert before[0] == "ar"
    heading = page.locator("#headline thead th").nth(3)
    assert heading.get_attribute("aria-sort") is None
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    values = [float(text.partition("x")[0]) for text in column(page, 4)[1:]]
    assert values == sorted(values, reverse=True)
    assert column(page, 1)[0] == "ar"
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    values = [float(text.partition("x")[0]) for text in column(page, 4)[1:]]
    assert values == sorted(values)
    assert column(page, 1)[0] == "ar"
    assert page.locator("#headline th[aria-sort]").count() == 1


def test_the_keyboard_sorts(visit, text_page):
    page = visit(text_page).page
    button = page.locator("#headline thead th button").first
    button.focus()
    page.keyboard.press("Enter")
    names = column(page, 1)[1:]
    assert names == sorted(names)
    outline = button.evaluate("item => getComputedStyle(item).outlineWidth")
    assert outline == "3px"


def test_the_filter_hides_lines_and_fades_marks(visit, text_page):
    page = visit(text_page).page
    page.fill("#filter", "jac")
    assert column(page, 1) == ["ar", "jacobi"]
    assert page.locator("#shown").inner_text() == "1 of 4 shown"
    marks = page.locator("#speedup .mark")
    assert marks.count() == 4
    assert page.locator("#speedup .mark.away").count() == 3
    page.fill("#filter", "")
    page.uncheck(".classes input[value=exact]")
    assert set(column(page, 1)) == {"ar", "jacobi", "typical_sd"}


def test_samples_step_by_button_choice_and_key(visit, text_page):
    page = visit(text_page).page
    seen = page.locator("#outputs > .sample:visible h3")
    first = seen.inner_text()
    assert seen.count() == 1
    page.click("#next")
    second = seen.inner_text()
    assert second != first
    page.keyboard.press("ArrowLeft")
    assert seen.inner_text() == first
    page.keyboard.press("ArrowLeft")
    assert seen.inner_text().startswith("12 of 12")
    page.select_option("#choice", "1")
    assert seen.inner_text() == second


def test_light_and_dark_differ_and_the_choice_is_kept(visit, text_page):
    light = visit(text_page, color_scheme="light").page
    dark = visit(text_page, color_scheme="dark").page
    assert light.screenshot() != dark.screenshot()
    ground = "getComputedStyle(document.body).backgroundColor"
    assert light.evaluate(ground) == "rgb(255, 255, 255)"
    light.click("#theme")
    assert light.inner_text("#theme") == "Theme: light"
    light.click("#theme")
    assert light.inner_text("#theme") == "Theme: dark"
    assert light.evaluate(ground) == dark.evaluate(ground)
    light.reload()
    assert light.inner_text("#theme") == "Theme: dark"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["text_page", "picture_page"])
def test_contrast_and_names(visit, request, name, scheme):
    page = visit(request.getfixturevalue(name), color_scheme=scheme).page
    page.locator("details").evaluate_all("all => all.forEach(item => { item.open = true; })")
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(UNNAMED) == []


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", ["text_page", "picture_page"])
def test_nothing_runs_out_of_the_page(visit, request, name, width):
    path = request.getfixturevalue(name)
    page = visit(path, viewport={"width": width, "height": 800}).page
    page.locator("details").evaluate_all("all => all.forEach(item => { item.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_script_everything_is_there(visit, text_page):
    page = visit(text_page, java_script_enabled=False).page
    assert page.locator("#outputs > .sample:visible").count() == 12
    assert page.locator(".toolbar:visible").count() == 0
    assert page.locator("#headline tbody tr:visible").count() == 5
    assert page.locator("#speedup svg.chart title").count() >= 5


def test_a_tooltip_says_what_a_mark_is(visit, text_page):
    page = visit(text_page).page
    page.locator("#speedup .mark").first.hover()
    tip = page.locator("#tooltip")
    assert tip.is_visible()
    assert tip.inner_text().startswith("typical_sd (lossy)\n3.16x [")
    page.mouse.move(0, 0)
    assert not tip.is_visible()


def test_paper_is_white_without_controls_and_prints(visit, text_page, tmp_path):
    page = visit(text_page, color_scheme="dark").page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".toolbar:visible, nav:visible, .stepper:visible").count() == 0
    page.set_viewport_size({"width": 700, "height": 1000})
    wide = page.evaluate(
        "Array.from(document.querySelectorAll('table, svg.chart'))"
        ".filter(item => item.checkVisibility() && item.getBoundingClientRect().right > 700)"
        ".map(item => item.id)"
    )
    assert wide == []
    document = page.pdf(format="A4")
    assert document.startswith(b"%PDF")
    assert document.count(b"/Type /Page\n") + document.count(b"/Type /Page ") >= 2


def test_motion_stops_where_it_is_not_wanted(visit, text_page):
    page = visit(text_page, reduced_motion="reduce").page
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
