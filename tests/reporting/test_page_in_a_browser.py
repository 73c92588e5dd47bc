"""The page in Chromium: silent, narrow, by keyboard, with texts, and whole on paper."""

import json
import shutil

import pytest

import mfgppl as mfg

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="chromium or chromedriver is not on the path"
)
PHONE, DESKTOP = (390, 844), (1280, 900)


@pytest.fixture(scope="module")
def path(roads_model, tmp_path_factory):
    """A page with draws, warnings and all parts, long names among them."""
    draws = mfg.laplace(roads_model, draws=200, random_seed=1, progressbar=False)
    draws.attrs["warnings"] = ["an_unusually_long_name_of_something_that_does_not_break " * 2]
    page = tmp_path_factory.mktemp("browser") / "report.html"
    patch = pytest.MonkeyPatch()
    with patch.context() as few:
        few.setattr("mfgppl.reporting.sections.CHECK_DRAWS", 20)
        few.setattr("mfgppl.reporting.sections.EQUILIBRIUM_DRAWS", 10)
        few.setattr("mfgppl.reporting.effects_section.EFFECT_DRAWS", 10)
        return mfg.report(draws, page, model=roads_model)


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window, with the log of its console."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, path):
    """The page, opened anew on a desktop's screen."""
    look(browser, DESKTOP)
    browser.get(path.as_uri())
    yield browser
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen"})


def look(browser, size):
    width, height = size
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def test_the_console_is_silent(page):
    """Nothing is fetched, nothing fails."""
    assert page.get_log("browser") == []
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("unfolded", [False, True])
def test_nothing_scrolls_sideways(page, size, unfolded):
    """On a phone and on a desktop, folded and with all unfolded."""
    look(page, size)
    if unfolded:
        page.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    width = page.execute_script("return document.documentElement.scrollWidth")
    assert width <= size[0]


def test_the_answer_is_on_the_first_screen(page):
    """Trust and estimates begin before one scrolls, and the parts come in their order."""
    tops = page.execute_script(
        "return ['.headline', '#part1', 'h3'].map(q => "
        "document.querySelector(q).getBoundingClientRect().top)"
    )
    assert tops == sorted(tops)
    assert tops[-1] < DESKTOP[1]
    headings = page.execute_script(
        "return [...document.querySelectorAll('h2')].map(h => h.innerText)"
    )
    assert headings[:4] == [
        "What was found", "Whether to trust it", "What would change the answer", "What was seen",
    ]  # fmt: skip


def test_the_crowds_coefficient_is_on_the_first_screen_of_a_phone(page):
    """Before the warnings, which may be long."""
    look(page, PHONE)
    first = page.find_element("css selector", ".first")
    assert "The crowd's coefficient “crowding” is" in first.text
    assert "Ten points more of the crowd" in first.text
    bottom = page.execute_script("return arguments[0].getBoundingClientRect().bottom", first)
    assert bottom < PHONE[1]


def test_details_open_by_keyboard(page):
    """The first folded line takes the focus, and Enter opens and closes it."""
    line = page.find_element("css selector", "details:not([open]) > summary")
    page.execute_script("arguments[0].focus()", line)
    assert page.switch_to.active_element == line
    for expected in (True, False):
        line.send_keys("\ue007")  # Enter
        assert page.execute_script("return arguments[0].parentElement.open", line) is expected


def test_terms_lead_to_the_glossary_by_keyboard(page):
    """A heading that is a term says its meaning on hover, and Enter goes to the glossary."""
    term = page.find_element("css selector", "section a.term")
    assert len(term.get_attribute("title")) > 20
    page.execute_script("arguments[0].focus()", term)
    term.send_keys("\ue007")
    anchor = page.execute_script("return location.hash.slice(1)")
    entry = page.find_element("id", anchor)
    assert entry.tag_name == "dt"
    top = page.execute_script("return arguments[0].getBoundingClientRect().top", entry)
    assert -1 <= top <= DESKTOP[1]
    links = page.execute_script(
        "return [...document.querySelectorAll('a[href^=\"#\"]')]"
        ".filter(a => !document.querySelector(a.getAttribute('href'))).length"
    )
    assert links == 0  # each leads somewhere


def test_each_figure_has_a_text(page):
    """An image without its picture is still a sentence, and each picture is drawn."""
    images = page.execute_script(
        "return [...document.images].map(i => [i.alt.length, i.naturalWidth])"
    )
    assert len(images) >= 5
    assert all(length > 20 and width > 100 for length, width in images)


def test_what_is_wrong_is_open_and_the_rest_folded(page, path):
    """A line that asks for care is unfolded; others are one line."""
    sections = json.loads(path.with_suffix(".json").read_text())["sections"]
    wrong = {s["title"] for s in sections if s["good"] is False}
    opened = page.execute_script(
        "return [...document.querySelectorAll('details[open] > summary > strong')]"
        ".map(s => s.innerText)"
    )
    assert set(opened) == wrong - {"Does the model predict what was seen?"}


def test_paper_holds_what_is_folded(page):
    """In print all details are laid out, whether they are open or not."""
    hidden = (
        "return [...document.querySelectorAll('details:not([open]) .inside')]"
        ".filter(d => d.checkVisibility())"
        ".filter(d => d.offsetHeight > 0).length"
    )
    folded = page.execute_script(
        "return document.querySelectorAll('details:not([open]) .inside').length"
    )
    assert page.execute_script(hidden) == 0
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.execute_script(hidden) == folded > 5
