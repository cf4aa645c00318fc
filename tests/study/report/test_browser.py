"""The page in headless Chromium, opened from the disk without a network."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from jax_ssl.study.report import facts, features, page, project
from tests.study.report.example import EVIL, make_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: apt-get install chromium"),
    pytest.mark.skipif(importlib.util.find_spec("axe_playwright_python") is None,
                       reason="pip install -e '.[test]' brings playwright and axe-core"),
]  # fmt: skip
WINDOWS = (("light", 400), ("dark", 1600))  # colour scheme and width in pixels
CONTROLS = "a[href], button, input, summary, canvas[tabindex], [tabindex='0']"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The page of a run, with a map of random features: here the page is looked at, and not the network."""
    import numpy as np

    folder = tmp_path_factory.mktemp("browser")
    found = facts.read(make_run(folder))
    random = np.random.RandomState(0)
    x, labels = random.randn(60, 8), np.arange(60) % 3
    images = random.randint(0, 256, (60, 32, 32, 3)).astype(np.uint8)
    confusion = features.Confusion(random.randint(0, 20, (3, 3)), "linear probe", 0.5)
    names = [f"{EVIL}{number}.png" for number in range(60)]
    seen = features.of_features("student", x, images, names, labels, confusion, "60 images")
    seen = seen._replace(plane=project.plane(x, library=""))
    path = folder / "report.html"
    path.write_text(page.run_page(found, seen))
    return path


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def opened(browser, file):
    """{(scheme, width): (the page, what its console and its errors said)}."""
    made = {}
    for scheme, width in WINDOWS:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, reduced_motion="reduce"
        )
        tab, said = context.new_page(), []
        tab.on("console", lambda message, said=said: said.append(message.text))
        tab.on("pageerror", lambda error, said=said: said.append(str(error)))
        tab.on("dialog", lambda dialog, said=said: (said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        tab.goto(file.as_uri())
        tab.wait_for_function("document.querySelectorAll('#legend button').length === 3")
        made[scheme, width] = tab, said
    return made


def test_no_message_and_every_picture_loads(opened):
    for tab, said in opened.values():
        assert said == []
        sizes = tab.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(sizes) > 25 and min(sizes) > 0


def test_the_page_is_never_wider_than_the_window(opened):
    for (_, width), (tab, _) in opened.items():
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_finds_nothing_serious(opened):
    from axe_playwright_python.base import AXE_FILE_PATH

    program = Path(AXE_FILE_PATH).read_text()
    for key, (tab, _) in opened.items():
        tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        tab.evaluate(program)
        found = tab.evaluate("axe.run()")
        tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = false; })")
        serious = [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]
                   if one["impact"] in ("serious", "critical")]  # fmt: skip
        assert not serious, (key, serious)
        assert len(found["passes"]) > 25


def test_the_keyboard_reaches_every_control(opened):
    tab, _ = opened["light", 400]
    # One of several radio buttons is reached by tabbing, the others by arrow keys, as everywhere.
    wanted = tab.evaluate(f"""[...document.querySelectorAll("{CONTROLS}")].filter(one => one.checkVisibility() &&
        !(one.type === "radio" && !one.checked)).map((one, place) => (one.dataset.place = place))""")
    tab.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(len(wanted) + 3):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("Number(document.activeElement.dataset.place ?? -1)"))
    assert set(wanted) <= reached


def test_the_map_answers_keys_and_the_mouse(opened):
    tab, said = opened["dark", 1600]
    chosen = lambda: tab.inner_text("#chosen")
    tab.focus("#plane")
    tab.keyboard.press("Home")
    first = chosen()
    assert EVIL + "0.png" in first and tab.locator("#chosen ol button").count() == features.NEAREST
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        tab.keyboard.press(key)
    assert chosen() != first
    tab.locator("#chosen ol button").first.press("Enter")
    assert "Its nearest images" in chosen()
    seen = lambda: tab.evaluate("document.getElementById('plane').toDataURL().length")
    whole = seen()
    tab.locator("#zoom-in").click()
    tab.focus("#plane")
    for _ in range(8):
        tab.keyboard.press("+")
    assert seen() != whole and chosen() != "Nothing is chosen."
    tab.keyboard.press("0")
    assert seen() == whole
    tab.keyboard.press("Escape")
    assert chosen() == "Nothing is chosen."
    shown = find_a_point(tab)
    assert EVIL in shown and tab.locator("#hover").is_visible()
    tab.mouse.down()
    tab.mouse.up()
    assert "Its nearest images" in chosen()
    tab.check("input[value=clusters]")
    assert "cluster 1" in tab.inner_text("#legend")
    button = tab.locator("#legend button").first
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert said == []


def find_a_point(tab) -> str:
    """Moves the mouse over the map until an image is shown; returns what is shown."""
    box = tab.locator("#plane").bounding_box()
    tab.locator("#plane").scroll_into_view_if_needed()
    box = tab.locator("#plane").bounding_box()
    for row in range(4, 36):
        for column in range(4, 36):
            tab.mouse.move(box["x"] + box["width"] * column / 40, box["y"] + box["height"] * row / 40)
            if tab.locator("#hover").is_visible():
                return tab.inner_text("#hover-text")
    return ""
