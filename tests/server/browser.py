"""Chromium without a screen, as a person uses the server's page."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Nothing on the page takes so long, on a busy machine either; trainings have their own limit.
WAIT = 120


def programs() -> tuple[str, str]:
    """Returns the browser and its driver; skips the test where one is missing."""
    pytest.importorskip("selenium", reason="the test extra brings selenium")
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    return browser, driver


class Browser:
    """A browser with the server's page.

    Args:
        browser: The program.
        driver: That which drives it.
        size: Of its window.
        is_dark: Whether its user likes dark pages.
    """

    def __init__(
        self, browser: str, driver: str, size: tuple[int, int] = (1280, 900), is_dark: bool = False
    ) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = browser
        flags = ["headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"]
        for flag in [*flags, "force-dark-mode"] if is_dark else flags:
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service(driver))
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        self.resize(*size)

    def resize(self, width: int, height: int) -> None:
        """Gives the page a size, however narrow."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def open(self, url: str, hash: str = "") -> None:
        """Opens the page of a server's API."""
        self.driver.get(f"{url.removesuffix('/v1')}/{hash}")

    def all(self, selector: str) -> list[Any]:
        """Returns the elements of a CSS selector that are shown."""
        return [e for e in self.driver.find_elements("css selector", selector) if e.is_displayed()]

    def wait(self, found: Callable[[], Any], limit: float = WAIT) -> Any:
        """Waits until something is true, and returns it."""
        from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        ignored = [StaleElementReferenceException]
        waiting = WebDriverWait(self.driver, limit, 0.05, ignored_exceptions=ignored)
        try:
            return waiting.until(lambda _: found())
        except TimeoutException:
            seen = f"{self.text('body')}\n{self.errors()}"
            raise AssertionError(f"{limit} s went by, and the page has: {seen}") from None

    def one(self, selector: str, words: str = "", limit: float = WAIT) -> Any:
        """Waits for an element that is shown and holds some words."""
        return self.wait(
            lambda: next((e for e in self.all(selector) if words in e.text), None), limit
        )

    def text(self, selector: str) -> str:
        """Returns the text of an element."""
        return str(self.driver.find_element("css selector", selector).text)

    def click(self, selector: str, words: str = "") -> None:
        """Clicks on an element once it is there."""
        self.one(selector, words).click()

    def type(self, selector: str, text: str) -> None:
        """Replaces what a field holds."""
        field = self.one(selector)
        field.clear()
        field.send_keys(text)

    def press(self, key: str) -> None:
        """Presses a key by selenium's name of it."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        ActionChains(self.driver).send_keys(getattr(Keys, key)).perform()

    def choose(self, selector: str, words: str) -> None:
        """Chooses the option of a select whose text holds some words."""
        field = self.one(selector)
        options = field.find_elements("tag name", "option")
        next(option for option in options if words in option.text).click()

    def upload(self, path: Path) -> None:
        """Gives the page a file, as its user's choice does."""
        self.driver.find_element("css selector", "#file").send_keys(str(path))

    def run(self, program: str, *values: Any) -> Any:
        """Runs JavaScript in the page."""
        return self.driver.execute_script(program, *values)

    def errors(self) -> list[str]:
        """Returns the errors and warnings that the browser's console has since the last call."""
        entries = self.driver.get_log("browser")
        return [e["message"] for e in entries if e["level"] in ("SEVERE", "WARNING")]

    def picture(self, path: Path) -> None:
        """Writes what is seen."""
        self.driver.save_screenshot(str(path))

    def close(self) -> None:
        """Ends it."""
        self.driver.quit()
