"""The page `/docs` as a person meets it: in a real browser, before a real service."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from stageway.serving import auth

pytestmark = pytest.mark.slow

SCRIPT = """
import numpy as np
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType as Array

@input_schema("data", Array(np.array([[1.0, 2.0]])))
@output_schema(Array(np.array([3.0])))
def run(data):
    return data.sum(axis=1)
"""
RAW = """
from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse

@rawhttp
def run(request):
    return AMLResponse(request.get_data(False)[::-1], 201)
"""

# Text over the colours behind it, by WCAG's formula; 4.5 is its limit for text of this size.
CONTRAST = """() => {
  const plain = (colour) => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => below.map((part, at) => at < 3 ? top[at] * top[3] + part * (1 - top[3]) : 1);
  const behind = (one) => {
    const own = one ? plain(getComputedStyle(one).backgroundColor) : [255, 255, 255, 1];
    return own[3] === 1 ? own : over(own, behind(one.parentElement));
  };
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((part) => part / 255)
      .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = {};
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) || one.value;
    if (!own || !one.checkVisibility() || one.closest("script")) continue;
    const ground = behind(one);
    const [a, b] = [light(over(plain(getComputedStyle(one).color), ground)), light(ground)];
    const name = one.tagName.toLowerCase() + (one.id ? "#" + one.id : "") + (one.className ? "." + one.className : "");
    found[name] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser(browser_program: str) -> Iterator[Any]:
    """The browser of this machine, without a window; playwright downloads none."""
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=browser_program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open `/docs` of a service: ``visit(service, **options)``. In the end nothing may have been blocked or thrown."""
    problems: list[str] = []
    contexts = []

    def open_page(service: Any, **options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        # A reply that is a refusal is a line of the console too, by the browser itself.
        page.on("console", lambda line: problems.append(line.text) if _unexpected(line) else None)
        page.goto(f"http://127.0.0.1:{service.port}/docs")
        page.get_by_text("ready", exact=True).wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def _unexpected(line: Any) -> bool:
    asked = str(line.location.get("url", "")).endswith("/score")
    refused = asked and re.search("status of 4|ERR_CONNECTION_REFUSED", line.text)
    return line.type in ("error", "warning") and not refused


@pytest.fixture(scope="module")
def service(start: Any) -> Any:
    return start(SCRIPT, "--docs", "--port", "0", "--model-version", "sums:3", "--release", "sha256:12").ready()


@pytest.fixture(scope="module")
def guarded(start: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, str]]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    keys = auth.make(file)
    return start(SCRIPT, "--docs", "--port", "0", "--auth", str(file)).ready(), keys


def sent(page: Any) -> str:
    """Press Send, and return the status that the page shows of the reply."""
    with page.expect_response("**/score") as reply:
        page.get_by_role("button", name="Send", exact=True).click()
    shown = "status => document.getElementById('status').textContent.startsWith(status)"
    page.wait_for_function(shown, arg=str(reply.value.status))
    page.wait_for_function("!document.getElementById('send').disabled")
    return str(page.locator("#status").inner_text())


def test_the_sample_is_there_and_is_answered(service: Any, visit: Any) -> None:
    page = visit(service)
    assert json.loads(page.locator("#body").input_value()) == {"data": [[1.0, 2.0]]}
    assert "Model sums:3" in page.locator("#about").inner_text()
    assert page.locator("#contract").inner_text().split("\n")[:2] == ["Takes data", "array of array(2) of number"]
    assert page.locator("#reply").inner_text() == ""
    assert sent(page) == "200 OK"
    assert page.locator("#reply").inner_text() == "[3.0]"
    assert re.fullmatch(r"[\d.]+ ms · 5 bytes", page.locator("#took").inner_text())
    page.get_by_text("Headers").click()
    assert "x-stageway-model-version\tsums:3" in page.locator("#header-rows").inner_text()


def test_what_is_typed_is_sent_by_key_too_and_sample_brings_the_sample_back(service: Any, visit: Any) -> None:
    page = visit(service)
    page.locator("#body").fill('{"data": [[1, 2], [3, 4.5]]}')
    assert '{"data": [[1, 2], [3, 4.5]]}' in page.locator("#curl").inner_text()
    with page.expect_response("**/score"):
        page.keyboard.press("Control+Enter")
    page.get_by_text("[3.0, 7.5]", exact=True).wait_for()
    page.get_by_role("button", name="Sample").click()
    assert json.loads(page.locator("#body").input_value()) == {"data": [[1.0, 2.0]]}


def test_a_body_that_is_no_json_is_said_and_so_is_the_refusal_of_the_service(service: Any, visit: Any) -> None:
    page = visit(service)
    page.locator("#body").fill('{"data": [[1, 2]')
    page.locator("#hint", has_text="Not JSON: ").wait_for()
    assert page.locator("#body").get_attribute("aria-invalid") == "true"
    assert sent(page) == "400 Bad Request"
    page.locator("#body").fill('{"data": [[1, 2]]}')
    page.locator("#hint", has_text="Ctrl + Enter sends.").wait_for()
    assert sent(page) == "200 OK"


def test_a_service_with_keys_asks_for_one_and_works_with_it(guarded: Any, visit: Any) -> None:
    service, keys = guarded
    page = visit(service)
    field = page.get_by_label("Key or token")
    assert field.is_visible()
    assert field.get_attribute("type") == "password"
    assert sent(page) == "401 Unauthorized"
    assert "asks for a key or a token" in page.locator("#reply").inner_text()
    for name in ("primary", "secondary"):
        field.fill(keys[name])
        assert sent(page) == "200 OK"
    assert keys["primary"] not in page.content()
    assert '"Authorization: Bearer $KEY"' in page.locator("#curl").inner_text()


def test_a_service_without_keys_asks_for_none(service: Any, visit: Any) -> None:
    assert not visit(service).get_by_label("Key or token").is_visible()


def test_the_links_of_the_page_are_answered_to_everybody(service: Any, guarded: Any, visit: Any) -> None:
    for one, metrics in ((service, True), (guarded[0], False)):
        page = visit(one)
        links = page.locator("#links a").evaluate_all("all => all.map(one => one.href)")
        assert any(link.endswith("/metrics") for link in links) == metrics
        assert len(links) >= 3
        assert {link: page.request.get(link).status for link in links} == dict.fromkeys(links, 200)


def test_a_file_is_sent_to_a_script_that_reads_requests_itself(start: Any, visit: Any, tmp_path: Path) -> None:
    file = tmp_path / "letters.txt"
    file.write_text("abc")
    page = visit(start(RAW, "--docs", "--port", "0").ready())
    page.get_by_label("Send a file instead").set_input_files(file)
    assert "--data-binary '@letters.txt'" in page.locator("#curl").inner_text()
    assert sent(page) == "201 Created"
    assert page.locator("#took").inner_text().endswith("3 bytes")


def test_what_others_named_is_shown_and_not_run(start: Any, visit: Any) -> None:
    name = "</script><script>document.title = 'run'</script><img src=x onerror=alert(1)> & {service}"
    page = visit(start(SCRIPT, "--docs", "--port", "0", environment={"SERVICE_NAME": name}).ready())
    assert page.title() == page.locator("h1").inner_text() == name


def test_code_that_is_not_the_pages_own_is_blocked(service: Any, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{service.port}/docs")
    page.evaluate("document.head.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    assert page.evaluate("window.ran") is None
    page.close()


def test_a_service_that_went_away_is_said(start: Any, visit: Any) -> None:
    service = start(SCRIPT, "--docs", "--port", "0").ready()
    page = visit(service)
    service.process.terminate()
    service.ended()
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_text("The service did not answer").wait_for()
    assert page.locator("#status").inner_text() == "no reply"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(guarded: Any, visit: Any, scheme: str) -> None:
    service, keys = guarded
    page = visit(service, color_scheme=scheme)
    grounds = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", grounds))) > 384) == (scheme == "light")
    seen = page.evaluate(CONTRAST)
    page.locator("#body").fill("{")
    sent(page)
    seen |= {"refused: " + name: ratio for name, ratio in page.evaluate(CONTRAST).items()}
    page.get_by_label("Key or token").fill(keys["primary"])
    page.get_by_role("button", name="Sample").click()
    sent(page)
    page.get_by_text("Headers").click()
    seen |= {"answered: " + name: ratio for name, ratio in page.evaluate(CONTRAST).items()}
    assert {"h1#title", "textarea#body", "refused: span#status.pill bad", "answered: span#status.pill good"} <= set(
        seen
    )
    assert {name: ratio for name, ratio in seen.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_has_to_be_scrolled_sideways(guarded: Any, visit: Any, width: int) -> None:
    service, keys = guarded
    page = visit(service, viewport={"width": width, "height": 800})
    page.get_by_label("Key or token").fill(keys["primary"])
    page.locator("#body").fill(json.dumps({"data": [[1.5, 2.5]] * 80}))
    assert sent(page) == "200 OK"
    page.get_by_text("Headers").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = (
        "[...document.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right > innerWidth + 1)"
    )
    assert page.evaluate(f"{outside}.map(one => one.tagName + '#' + one.id)") == []
