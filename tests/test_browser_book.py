"""The book in a real browser: every page and link works, without a network, for everybody."""

import re
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

pytest.importorskip("playwright", reason="needs the extra browser")

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from browser import chromium, served  # noqa: E402
from projects import LONGEST_S  # noqa: E402

from lrscan.experiments import claims  # noqa: E402
from lrscan.runner import catalog  # noqa: E402

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "build" / "book"
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
# Axe finds these two faults. What it cannot know, people must check.
FAULTY = "<img src='x.png'><p style='color: #aaa; background: #fff'>pale</p>"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address():
    if not (BOOK / "index.html").is_file():
        pytest.fail("there is no book: run make book")
    with served(BOOK) as address:
        yield address


def watch(page):
    """Let a page record its errors, and its requests to other machines."""
    page.errors, page.elsewhere = [], []
    local = ("http://127.0.0.1", "file:", "data:", "blob:")

    def note(message) -> None:
        # The theme reports an error if nobody has chosen between light and dark yet.
        if message.type == "error" and "theme mode" not in message.text:
            page.errors.append(message.text)

    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", note)
    page.on("request", lambda r: None if r.url.startswith(local) else page.elsewhere.append(r.url))
    return page


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(LONGEST_S * 1000)
    yield watch(context.new_page())
    context.close()


@pytest.fixture(scope="module")
def crawled(browser, address):
    """Every page reachable from the first one: its links, anchors, images and formulae."""
    context = browser.new_context()
    pages, waiting = {}, [address + "index.html"]
    page = watch(context.new_page())
    while waiting:
        url = waiting.pop()
        if url in pages or not url.endswith(".html"):
            continue
        status = page.goto(url).status
        if "/api/" not in url:  # scripts of the other pages may fetch something later
            page.wait_for_load_state("networkidle")
        pages[url] = page.evaluate(
            r"""() => ({
                title: document.title,
                links: [...document.querySelectorAll("a[href]")].map((a) => a.href),
                ids: [...document.querySelectorAll("[id]")].map((e) => e.id),
                images: [...document.querySelectorAll("img")].map(
                    (i) => [i.getAttribute("src"), i.alt, i.complete && i.naturalWidth > 0]),
                formulae: [...document.querySelectorAll("math")].map(
                    (m) => m.getBoundingClientRect().width),
                raw: /\$\$|\\frac|\\begin\{/.test(document.querySelector("main").innerText),
            })"""
        ) | {"status": status, "errors": page.errors, "elsewhere": page.elsewhere}
        waiting += [urldefrag(link).url for link in pages[url]["links"] if link.startswith(address)]
    context.close()
    return pages


def test_every_notebook_and_the_reference_are_reached(crawled, address):
    names = {url.removeprefix(address) for url in crawled}
    for notebook in catalog.discover(ROOT):
        assert f"notebooks/{notebook.name}.html" in names
    guide = {f"docs/guide/{path.stem}.html" for path in (ROOT / "docs" / "guide").glob("*.md")}
    assert {"index.html", "api/lrscan.html", "api/lrscan.nn.html"} | guide <= names
    internal = ("core", "cpu", "cuda", "runner", "cli", "campaign", "experiments", "learn")
    assert not any(name.startswith(f"api/lrscan.{room}") for room in internal for name in names)
    assert all(page["status"] == 200 and page["title"] for page in crawled.values())


def test_every_internal_link_and_anchor_is_there(crawled, address):
    broken = []
    for url, page in crawled.items():
        for link in page["links"]:
            target, anchor = urldefrag(link)
            if not link.startswith(address):
                continue
            if target in crawled:
                found = not anchor or unquote(anchor) in crawled[target]["ids"]
            else:
                found = (BOOK / unquote(target.removeprefix(address))).exists()
            broken += [] if found else [(url, link)]
    assert broken == []


def test_every_image_is_there_and_described(crawled):
    images = [image for page in crawled.values() for image in page["images"]]
    assert len(images) > 2
    assert [image for image in images if not (image[1].strip() and image[2])] == []


def test_formulae_are_shown_without_the_network(crawled):
    widths = [width for page in crawled.values() for width in page["formulae"]]
    assert widths and min(widths) > 0
    assert [url for url, page in crawled.items() if page["raw"] and "/api/" not in url] == []


def test_no_page_asks_for_anything_from_the_network(crawled):
    assert [page["elsewhere"] for page in crawled.values() if page["elsewhere"]] == []
    assert [page["errors"] for page in crawled.values() if page["errors"]] == []


def test_no_page_names_a_folder_of_this_machine(address):
    pages = [*BOOK.rglob("*.html"), *BOOK.rglob("*.js"), *BOOK.rglob("*.ipynb")]
    assert len(pages) > 10
    assert [path for path in pages if str(ROOT) in path.read_text(errors="replace")] == []


def test_the_book_opens_from_the_disk(page):
    page.goto((BOOK / "index.html").as_uri())
    assert page.locator("h1").inner_text().startswith("lrscan")
    page.locator("main .sd-card").nth(1).click()
    assert page.locator("h1").inner_text().startswith("Lessons")
    assert (page.elsewhere, page.errors) == ([], [])


def test_the_front_page_has_a_moving_stepper_three_doors_and_the_claims(page, address):
    page.goto(address + "index.html")
    slider = page.locator(".lrscan-player input[type=range]")
    page.wait_for_function("document.querySelector('.lrscan-player input').value > 1")
    page.locator(".lrscan-player").get_by_role("button", name="play or stop").click()
    stopped = slider.input_value()
    page.wait_for_timeout(1500)
    assert slider.input_value() == stopped
    doors = page.locator("main .sd-card a").evaluate_all("links => links.map((a) => a.href)")
    assert len(doors) == 3
    rows = page.locator("main table.lrscan-claims tbody tr")
    assert [row.split()[0] for row in rows.all_inner_texts()] == [c.id for c in claims.CLAIMS]
    assert rows.locator("a").count() >= len(claims.CLAIMS)
    assert page.errors == []


def test_the_front_page_stands_still_for_those_who_ask_for_it(browser, address):
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(address + "index.html")
    page.wait_for_timeout(1500)
    assert page.locator(".lrscan-player input[type=range]").input_value() == "0"
    context.close()


def test_code_and_claims_fit_the_page(crawled, page, address):
    """No code cell scrolls sideways at 1400 px, and no claim is cut off on a phone."""
    scrolling_code = """() =>
        [...document.querySelectorAll("div.cell_input pre, div.highlight-python pre")]
            .filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.innerText)"""
    page.set_viewport_size({"width": 1400, "height": 900})
    scrolling = {}
    for url in [url for url in crawled if "/notebooks/" in url or "/guide/" in url]:
        page.goto(url)
        if found := page.evaluate(scrolling_code):
            scrolling[url] = found
    assert scrolling == {}
    page.set_viewport_size({"width": 400, "height": 900})
    for name in ("index.html", "notebooks/reproduce/00_claims.html"):
        page.goto(address + name)
        table = page.locator("table.lrscan-claims").first.bounding_box()
        assert table["x"] >= 0 and table["x"] + table["width"] <= 400, name


def test_parameters_are_folded_and_shown_once(crawled, page):
    for url in [url for url in crawled if "/notebooks/" in url]:
        page.goto(url)
        cells = page.locator("div.cell.tag_parameters, div.cell.tag_injected-parameters")
        assert cells.count() == 1, url
        assert not cells.locator("pre").first.is_visible(), url


def test_every_claim_of_the_front_page_has_a_verdict_and_a_notebook(page, address):
    page.goto(address + "index.html")
    rows = page.locator("table.lrscan-claims tbody tr")
    table = claims.table()
    assert rows.count() == table["id"].nunique()
    for row, (name, found) in zip(rows.all(), table.groupby("id"), strict=True):
        text = row.inner_text()
        assert text.startswith(name) and any(verdict in text for verdict in found["verdict"])
        link = row.get_by_role("link").get_attribute("href")
        assert link == f"notebooks/{found['notebook'].iloc[0]}.html"


@pytest.mark.parametrize("size", [(1000, 700), (390, 844)], ids=["laptop", "phone"])
def test_the_claims_fit_on_a_screen(page, address, size):
    page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    for name in ("index.html", "notebooks/reproduce/00_claims.html"):
        page.goto(address + name)
        box = page.locator("table.lrscan-claims").bounding_box()
        assert box["height"] <= size[1] and box["x"] + box["width"] <= size[0], (name, box)


def test_the_details_of_a_claim_unfold(page, address):
    page.goto(address + "notebooks/reproduce/00_claims.html")
    devices = page.get_by_text("What differs:").first
    assert not devices.is_visible()
    page.locator("table.lrscan-claims summary").first.click()
    assert devices.is_visible()


def test_search_finds_without_the_network(page, address):
    page.goto(address + "search.html?q=recurrence")
    results = page.locator("#search-results li a")
    results.first.wait_for()
    assert results.count() > 2
    assert (page.elsewhere, page.errors) == ([], [])


@pytest.mark.parametrize("width", [1200, 400], ids=["desktop", "phone"])
def test_no_page_breaks_a_rule_of_accessibility(crawled, page, width):
    page.set_viewport_size({"width": width, "height": 900})
    found = {}
    # The pages of the reference resemble each other, and so do the notebooks on a small screen.
    similar = r"/api/(?!index|lrscan\.ops)" if width > 1000 else r"/api/|/notebooks/learn/0[2-9]"
    for url in [url for url in crawled if not re.search(similar, url)]:
        page.goto(url)
        report = Axe().run(page, options=RULES)
        assert len(report.response["passes"]) > 5
        broken = [
            (rule["id"], node["html"][:200])
            for rule in report.response["violations"]
            for node in rule["nodes"]
        ]
        if broken:
            found[url] = broken
    assert found == {}


def test_the_rules_find_faults(page, address):
    page.goto(address + "index.html")
    page.evaluate(
        "html => document.querySelector('main').insertAdjacentHTML('beforeend', html)", FAULTY
    )
    broken = {rule["id"] for rule in Axe().run(page, options=RULES).response["violations"]}
    assert {"image-alt", "color-contrast"} <= broken


def test_the_keyboard_suffices(page, address):
    page.goto(address + "index.html")
    page.keyboard.press("Tab")
    assert "skip" in page.evaluate("document.activeElement.textContent").lower()
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.getAttribute('href')"))
    assert "lessons.html" in seen
    page.goto(address + "index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("gradient")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=gradient*")


def test_a_stepper_of_a_lesson_moves_in_the_book(crawled, page, address):
    lessons = [notebook for notebook in catalog.discover(ROOT) if "learn" in notebook.name]
    with_stepper = [
        f"{address}notebooks/{lesson.name}.html"
        for lesson in lessons
        if 'class="lrscan-player"' in (BOOK / f"notebooks/{lesson.name}.html").read_text()
    ]
    if not with_stepper:
        pytest.skip("no lesson has a stepper")
    for url in with_stepper:
        page.goto(url)
        stepper = page.locator(".lrscan-player").first
        slider = stepper.locator("input[type=range]").first
        before = slider.input_value()
        stepper.get_by_role("button", name="next step").click()
        assert slider.input_value() != before
        slider.press("Home")
        assert slider.input_value() == "0"
    assert page.errors == []
