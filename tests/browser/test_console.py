"""The operators' page in a real browser, over a real database."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from infra.local.ports import new_port
from infra.local.stack import LocalStack
from schemas.ids import JourneyId, PaymentId
from streams.console.agent import run
from streams.core.bootstrap import composed
from streams.core.settings import Settings
from streams.core.telemetry.tracing import trace_id
from tests.browser.world import GTIN, HOSTILE, SECRET, Seeded, seed
from tests.support.servers import migrated_database, missing
from tests.support.waiting import eventually

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--headless",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-pings",
]
expect.set_options(timeout=30_000)  # milliseconds: a browser that starts on a busy machine takes its time
TRACE_PAGE = "http://127.0.0.1:9411/zipkin/traces/{trace_id}"


@dataclass(frozen=True)
class Console:
    address: str
    seeded: Seeded


@pytest.fixture(scope="session")
async def console(stack: LocalStack) -> AsyncIterator[Console]:
    """With a database of its own, for its journeys are counted."""
    database_url = await migrated_database(stack.environment["DATABASE_URL"])
    port = new_port()
    settings = Settings(DATABASE_URL=database_url, console_port=port, trace_page=TRACE_PAGE)
    async with composed(settings) as parts:
        async with parts.database().transaction() as connection:
            seeded = await seed(connection)
        role = asyncio.create_task(run(parts))
        try:
            await _until_healthy(f"http://127.0.0.1:{port}", role)
            yield Console(f"http://127.0.0.1:{port}", seeded)
        finally:
            role.cancel()
            await asyncio.wait([role])


async def _until_healthy(address: str, role: asyncio.Task[None]) -> None:
    async with httpx.AsyncClient() as client:

        async def healthy() -> bool:
            if role.done():
                role.result()
            with suppress(httpx.TransportError):
                return (await client.get(f"{address}/healthz")).status_code == 200
            return False

        await eventually(healthy, what="the console's health")


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    if not Path(CHROMIUM).exists():
        missing("Chromium", "install the package `chromium`, or set CHROMIUM to its program")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        await chromium.close()


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """Ends with a check that nothing was reported: no script error, no violated policy, no failed request."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    reported: list[str] = []

    def watch(page: Page) -> None:
        page.on("console", lambda message: reported.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: reported.append(str(error)))

    context.on("page", watch)
    yield context
    await context.close()
    assert reported == []


@pytest.fixture
async def page(context: BrowserContext) -> Page:
    return await context.new_page()


async def test_the_list_says_how_each_journey_ended_and_how_long_it_took(page: Page, console: Console) -> None:
    await page.goto(console.address)
    row = page.locator(f"#{console.seeded.paid}")
    await expect(row).to_contain_text("Bleistift HB, 12 Stück")
    await expect(row).to_contain_text("6.50 EUR")
    await expect(row.locator(".outcome")).to_have_text("paid")
    await expect(row.locator(".figure").nth(0)).to_have_text("48 ms")
    await expect(row.locator(".figure").nth(1)).to_have_text("4.50 s")
    await expect(row.locator(".wide")).to_have_text("POST 139 ms")
    for journey, outcome in (
        (console.seeded.unclear, "look again"),
        (console.seeded.cancelled, "cancelled"),
        (console.seeded.declined, "declined"),
        (console.seeded.hostile, "answered"),
    ):
        await expect(page.locator(f"#{journey} .outcome")).to_have_text(outcome)
    await expect(page.locator(f"#{console.seeded.cancelled}")).to_contain_text("doffed")
    await expect(page.locator(f"#{console.seeded.dead}")).to_contain_text("1 dead letter")
    await expect(page.locator("#flow li", has_text="intents").filter(has_text="1 dead letter")).to_have_count(1)


async def test_paging_shows_every_journey_once(page: Page, console: Console) -> None:
    await page.goto(console.address)
    first = await _rows(page)
    assert first == sorted(first, reverse=True)
    assert len(first) == 50
    await page.get_by_role("link", name="Older").click()
    await expect(page.locator("#list-title")).to_have_text("Older journeys")
    second = await _rows(page)
    assert len({*first, *second}) == len(first) + len(second) == console.seeded.count
    await expect(page.get_by_role("link", name="Older")).to_have_count(0)


async def _rows(page: Page) -> list[str]:
    ids: list[str] = await page.locator(".journeys tbody tr").evaluate_all("rows => rows.map(row => row.id)")
    return ids


async def test_filtering_by_every_kind_of_id(page: Page, console: Console) -> None:
    paid = console.seeded.paid
    await page.goto(f"{console.address}/journeys/{paid}")
    payment = (await page.locator(".columns .id").first.inner_text()).splitlines()[0]
    assert PaymentId(payment)
    await page.goto(console.address)
    for text in (paid, trace_id(JourneyId(paid)), payment, paid[:14]):
        await _search(page, text)
        assert await _rows(page) == [paid]
    await _search(page, str(console.seeded.world.device))
    assert len(await _rows(page)) == 50
    await _search(page, GTIN.lstrip("0"))
    found = await _rows(page)
    assert paid in found
    assert console.seeded.unclear not in found
    await _search(page, "ceci n'est pas un id")
    await expect(page.locator(".nothing")).to_contain_text("This is no id")


async def _search(page: Page, text: str) -> None:
    await page.get_by_role("searchbox").fill(text)
    async with page.expect_navigation():
        await page.keyboard.press("Enter")
    await expect(page.get_by_role("searchbox")).to_have_value(text)


async def test_a_journey_is_opened_and_unfolded_by_keyboard(page: Page, console: Console) -> None:
    await page.goto(console.address)
    for _ in range(30):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.id") == f"open-{console.seeded.paid}":
            break
    async with page.expect_navigation():
        await page.keyboard.press("Enter")
    await expect(page.locator("#opened-title")).to_have_text("Bleistift HB, 12 Stück")
    await expect(page.locator(".waterfall .hop")).to_have_count(24)
    first = page.locator(".hop summary").first
    await first.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(".attributes").first).to_contain_text("sighting.captured")
    await page.locator("#close").focus()
    async with page.expect_navigation():
        await page.keyboard.press("Enter")
    await expect(page.locator("#opened")).to_have_count(0)


async def test_an_opened_journey_shows_what_happened(page: Page, console: Console) -> None:
    paid = console.seeded.paid
    await page.goto(f"{console.address}/journeys/{paid}")
    bars = page.locator(".waterfall .bar rect:not(.rail)")
    boxes = [await bars.nth(index).bounding_box() for index in range(await bars.count())]
    assert all(box and box["width"] >= 1 and box["height"] >= 8 for box in boxes)
    await expect(page.locator(".pause")).to_have_text("pause of 4.13 s")
    await expect(page.locator("#trace")).to_have_attribute("href", TRACE_PAGE.format(trace_id=trace_id(JourneyId(paid))))
    details = page.locator("#opened")
    for text in (
        "authorise: succeeded",
        "payment captured",
        "attempt 1: ReadTimeout",
        "attempt 2: 200",
        "https://shop.example/hooks",
    ):
        await expect(details).to_contain_text(text)
    await expect(details.locator("h3", has_text="Receipt")).to_have_text("Receipt verified")


async def test_frozen_payments_are_pointed_at(page: Page, console: Console) -> None:
    await page.goto(console.address)
    pointer = page.locator("#attention")
    await expect(pointer).to_contain_text("1 frozen payment (pay_")
    await pointer.locator("a").click()
    await expect(page).to_have_url(f"{console.address}/journeys/{console.seeded.declined}")
    await expect(page.locator("#opened")).to_contain_text("Frozen: the provider says 6.50 EUR was paid")
    await expect(page.locator("#opened")).to_contain_text("augenblick payments resolve pay_")


async def test_dead_letters_say_why_and_where(page: Page, console: Console) -> None:
    await page.goto(f"{console.address}/dead-letters")
    letter = page.locator(".letters li")
    await expect(letter).to_contain_text("event-invalid")
    await expect(letter).to_contain_text("/data/quantity: Input should be at most 99")
    await expect(letter).to_contain_text("glasses.intents, partition 2")
    await letter.get_by_role("link").click()
    await expect(page.locator("#opened .letters")).to_contain_text("event-invalid")


async def test_a_title_is_text_whatever_it_says(page: Page, console: Console) -> None:
    await page.goto(f"{console.address}/journeys/{console.seeded.hostile}")
    await expect(page.locator("#opened-title")).to_have_text(HOSTILE)
    await expect(page.locator(f"#{console.seeded.hostile} .what a")).to_have_text(HOSTILE)
    assert await page.locator("img[src=x]").count() == 0
    assert await page.title() == f"{HOSTILE} · Augenblick"
    await page.goto(f"{console.address}/?search=%3Cscript%3Ealert(1)%3C/script%3E")
    await expect(page.locator("#list-title")).to_have_text("Journeys with <script>alert(1)</script>")


async def test_nothing_secret_is_shown(console: Console) -> None:
    async with httpx.AsyncClient(base_url=console.address) as client:
        for path in ("/", f"/journeys/{console.seeded.paid}", f"/journeys/{console.seeded.dead}", "/dead-letters"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert SECRET not in answer.text


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_400_pixels_are_enough(browser: Browser, console: Console, scheme: str) -> None:
    context = await browser.new_context(viewport={"width": 400, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page = await context.new_page()
    for path in ("/", f"/journeys/{console.seeded.paid}", f"/journeys/{console.seeded.hostile}", "/dead-letters", "/nowhere"):
        await page.goto(console.address + path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 400, path
    await context.close()


_CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const [r, g, b, a = 1] = channels(getComputedStyle(element).backgroundColor);
      if (a === 1) return [r, g, b];
      if (a !== 0) return null;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    const behind = ground(element);
    const pair = behind && [light(channels(getComputedStyle(element).color)), light(behind)].sort((a, b) => b - a);
    const ratio = pair ? (pair[0] + 0.05) / (pair[1] + 0.05) : 0;
    if (ratio < 4.5) poor.push(`${element.className || element.tagName} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_has_enough_contrast(browser: Browser, console: Console, scheme: str) -> None:
    context = await browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
    page = await context.new_page()
    for path in ("/", f"/journeys/{console.seeded.paid}", f"/journeys/{console.seeded.dead}", "/dead-letters", "/nowhere"):
        await page.goto(console.address + path)
        assert await page.evaluate(_CONTRASTS) == [], path
    await context.close()


async def test_the_list_refreshes_by_itself(page: Page, console: Console) -> None:
    await page.goto(console.address)
    link = page.locator(f"#open-{console.seeded.hostile}")
    await link.focus()
    async with page.expect_response(lambda answer: "/parts/journeys" in answer.url):
        pass
    await page.wait_for_timeout(200)
    assert await page.evaluate("document.activeElement.id") == f"open-{console.seeded.hostile}"


async def test_failing_to_refresh_is_said(browser: Browser, console: Console) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(console.address)
    await context.set_offline(True)
    await expect(page.locator("#stopped")).to_be_visible()
    await expect(page.locator(f"#{console.seeded.paid}")).to_be_visible()
    await context.set_offline(False)
    await expect(page.locator("#stopped")).to_be_hidden()
    await context.close()


async def test_refusals(console: Console) -> None:
    async with httpx.AsyncClient(base_url=console.address) as client:
        for method, path, host, status, code in (
            ("GET", "/nowhere", None, 404, "not-found"),
            ("GET", "/journeys/jrn_nonsense", None, 404, "not-found"),
            ("GET", f"/journeys/{JourneyId.new()}", None, 404, "not-found"),
            ("GET", "/?before=nonsense", None, 422, "request-invalid"),
            ("GET", "/dead-letters?before=%00", None, 422, "request-invalid"),
            ("POST", "/", None, 405, "method-not-allowed"),
            ("DELETE", "/static/console.css", None, 405, "method-not-allowed"),
            ("GET", "/", "rebound.example", 404, "not-found"),
        ):
            headers = {"host": host} if host else {}
            answer = await client.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert answer.headers["content-type"] == "application/problem+json"
            answer = await client.request(method, path, headers={**headers, "accept": "text/html"})
            assert answer.status_code == status
            assert answer.headers["content-type"].startswith("text/html")
            assert answer.headers["content-security-policy"].startswith("default-src 'self'")


async def test_every_answer_has_the_headers(console: Console) -> None:
    async with httpx.AsyncClient(base_url=console.address) as client:
        for path in ("/", "/healthz", "/static/console.css", "/static/htmx-2.0.11.min.js", "/nowhere"):
            headers = (await client.get(path)).headers
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
