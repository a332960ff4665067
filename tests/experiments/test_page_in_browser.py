"""The page of a report in a real browser, on a wide screen and on a telephone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tf_finetune.experiments.report import main
from tf_finetune.runs.report import report_files

webdriver: Any = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not program or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()


@pytest.fixture
def page(make_run) -> Path:
    """A report of 77 labels with long texts without a blank."""
    random = np.random.default_rng(0)
    names = [f"a_rather_long_label_{n:02}" for n in range(77)]
    train = [(f"word{n % 77} a b", names[n % 77]) for n in range(154)]
    rows = []
    for n in range(231):
        shares = random.dirichlet(np.full(77, 0.2))
        said = dict(zip(names, shares.tolist(), strict=True))
        text = f"word{n % 77} " + "x" * 300 + "<script>throw 1</script>"
        rows.append((text, names[n % 77], said))
    model_dir = make_run(train, rows, names)
    assert main([str(model_dir)]) == 0
    return Path(report_files(model_dir).html)


def test_a_page_fits_and_breaks_nothing(browser, page):
    for width in (1280, 400):
        for scheme in ("light", "dark"):
            look(browser, page, width, scheme)


def look(browser: Any, page: Path, width: int, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    wide, seen = browser.execute_script(
        "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
    )
    assert wide <= seen <= width
    # Every figure has a title, a size, and letters that can be told from the paper.
    drawn = browser.execute_script(
        """return [...document.querySelectorAll("svg")].map(svg => [
            svg.querySelector("title")?.textContent, svg.getBoundingClientRect().width,
            [...svg.querySelectorAll("text")].map(text => getComputedStyle(text).fill)])"""
    )
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert len(drawn) > 3
    for title, shown, inks in drawn:
        assert title and shown > 150 and inks and paper not in inks
    assert browser.execute_script("return document.querySelectorAll('script').length") == 0
    # By the keyboard one comes to everything that is scrolled.
    hidden = browser.execute_script(
        """return [...document.querySelectorAll("main *")].filter(part =>
            part.scrollWidth > part.clientWidth + 1 && getComputedStyle(part).overflowX == "auto"
            && part.tabIndex < 0).length"""
    )
    assert hidden == 0
