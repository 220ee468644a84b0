"""The status page as a browser shows it."""

import signal
import threading

import numpy as np
import pytest
from PIL import Image

from rt2_jax.client import PolicyServerError, RemotePolicy

from ..conftest import Toy, seen
from .chromium import browser_page

pytestmark = pytest.mark.slow
NASTY = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"


class Telling(Toy):
    """Says all that a policy can say of its answer."""

    def _answer(self, observation):
        action = np.array([[1, 0.03, -0.02, 0.05, 0, 0.1, 0, 0.75]], np.float32)
        levels = np.array([[1, 204, 76, 255, 128, 178, 128, 191]], np.int32)
        return {
            "actions": action,
            "tokens": 1000 + levels[0],
            "levels": levels,
            "plan": f"plan of {observation.instruction}",
            "score": -0.8,
        }


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests; what goes wrong in a page fails the test that opened it."""
    with browser_page() as page:
        yield page


@pytest.fixture
def page(browser):
    browser.errors.clear()
    browser.open("about:blank")
    yield browser
    assert browser.errors == []


def http(url, path="/"):
    return url.replace("ws", "http", 1) + path


def text(page, selector):
    return page.look(f"document.querySelector({selector!r})?.textContent ?? ''")


def test_a_session_appears_with_its_frame_instruction_arrow_bars_and_times(serve, page):
    _, url = serve(Telling())
    page.open(http(url))
    page.wait("document.querySelector('#nobody').checkVisibility()")
    assert "No robot has asked for anything yet" in text(page, "#nobody") and url in text(
        page, "#address"
    )
    with RemotePolicy(url) as robot:
        robot.infer(seen(200, "push the red cube", session="arm 1", step=3))
        page.wait("document.querySelector('.card .frames img')?.naturalWidth === 6")
        card = page.look("document.querySelector('.card').innerText")
        for words in (
            "arm 1",
            "push the red cube",
            "plan of push the red cube",
            "90 %",
            "75 % open",
        ):
            assert words in card
        assert "+0.0300 m" in card and "−0.0200 m" in card and "continue" in card
        assert "1001 1204 1076" in card and "1 204 76 255" in card
        # 0.03 of 0.05 along x is up, -0.02 along y is to the right.
        tip = page.look("document.querySelector('.compass .head').getAttribute('points')")
        x, y = map(float, tip.split(" ")[0].split(","))
        assert (x, y) == (66, 26)
        widths = page.look(
            "[...document.querySelectorAll('.card .fill')].map((e) => +e.getAttribute('width'))"
        )
        np.testing.assert_allclose(widths[:3], [30, 20, 50], atol=0.01)
        assert page.look("document.querySelectorAll('#latency .bin').length") == 3
    page.wait("document.querySelector('.card .age').textContent.startsWith('left')")
    assert page.look("document.querySelector('#nobody').hidden")


def test_what_a_client_sends_is_text_and_never_markup(serve, page):
    _, url = serve(Telling())
    with RemotePolicy(url) as robot, RemotePolicy(url) as other:
        robot.infer(seen(instruction=NASTY, session=NASTY))
        with pytest.raises(PolicyServerError):
            other.infer(seen(instruction="unreadable", session="<b>other</b>"))
        page.open(http(url))
        page.wait("document.querySelectorAll('.card').length === 2")
        assert (
            page.look("document.querySelectorAll('.card script, .card img[src=x], .card b').length")
            == 1
        )
        shown = page.look("[...document.querySelectorAll('.card')].map((e) => e.innerText).join()")
    assert NASTY in shown and f"plan of {NASTY}" in shown and "<b>other</b>" in shown
    assert "toy" in page.look("document.title")


def test_the_form_answers_and_says_why_it_cannot(serve, page, tmp_path):
    _, url = serve(Telling())
    for view in ("front", "wrist"):
        Image.new("RGB", (6, 4)).save(tmp_path / f"{view}.png")
    page.open(http(url, "/status"))
    page.wait("document.querySelectorAll('#try-views .view').length === 2")
    page.type_in("#try-instruction", "lift the cup")
    page.choose_file("[data-view=front]", tmp_path / "front.png")
    page.wait("document.querySelector('.preview img')?.naturalWidth === 6")
    page.look("document.querySelector('#try-ask').click()")
    page.wait("document.querySelector('#try-answer .error')")
    assert "no picture of view 'wrist'" in text(page, "#try-answer")
    page.choose_file("[data-view=wrist]", tmp_path / "wrist.png")
    page.wait("document.querySelectorAll('.preview img').length === 2")
    page.look("document.querySelector('#try-ask').click()")
    page.wait("document.querySelector('#try-answer .compass')")
    answer = text(page, "#try-answer")
    assert "plan of lift the cup" in answer and "+0.0300 m" in answer and "1001 1204" in answer
    page.wait("document.querySelector('.card h3')?.textContent === 'try-it'")


def test_the_form_takes_a_robots_newest_frame(serve, page):
    _, url = serve(Telling())
    with RemotePolicy(url) as robot:
        robot.infer(seen(120, "push", session="arm"))
        page.open(http(url))
        page.wait("document.querySelector('.card')")
        page.look("document.querySelector('#try-newest').click()")
        page.wait("document.querySelectorAll('.preview img').length === 2")
        page.look("document.querySelector('#try-ask').click()")
        page.wait("document.querySelector('#try-answer .compass')")
    assert "plan of push" in text(page, "#try-answer")


def test_a_wrong_token_is_told_and_the_right_one_never_stands_in_an_address(serve, page):
    _, url = serve(Telling(), token="secret")
    page.open(http(url))
    page.wait("document.querySelector('#key-dialog').open")
    assert text(page, "#key-wrong") == "" and text(page, ".card") == ""
    page.type_in("#key", "guess")
    page.look("document.querySelector('#key-form button').click()")
    page.wait("document.querySelector('#key-wrong').textContent.includes('does not know')")
    page.type_in("#key", "secret")
    page.look("document.querySelector('#key-form button').click()")
    page.wait("document.querySelector('#state').textContent.startsWith('serving')")
    assert not page.look("document.querySelector('#key-dialog').open")
    addresses = page.look(
        "[location.href, ...performance.getEntriesByType('resource').map((e) => e.name)].join()"
    )
    assert "status.json" in addresses and "secret" not in addresses


def test_a_server_that_ends_and_one_that_is_gone_are_told(serve, page):
    policy = Telling()
    server, url = serve(policy)
    with RemotePolicy(url) as robot:
        robot.infer(seen(session="arm"))
        page.open(http(url))
        page.wait("document.querySelector('.card')")
        assert page.look("document.querySelector('#banner').hidden")
        policy.seconds = 2.5
        asking = threading.Thread(target=robot.infer, args=(seen(session="arm"),))
        asking.start()
        page.wait("document.querySelector('#tiles').textContent.includes('in flight1')")
        server.handle_exit(signal.SIGTERM, None)
        page.wait("document.querySelector('#banner').textContent.includes('is ending')")
        asking.join()
    page.wait("document.querySelector('#state').textContent === 'connection lost'")
    assert "What you see is" in text(page, "#banner")
    assert "grayscale" in page.look("getComputedStyle(document.querySelector('main')).filter")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_on_a_narrow_screen(serve, page, scheme):
    _, url = serve(Telling())
    with RemotePolicy(url) as robot:
        robot.infer(seen(instruction="x" * 300, session="y" * 200))
        page.open(http(url), width=400, scheme=scheme)
        page.wait("document.querySelector('.card .compass')")
        page.wait("document.querySelector('#model table')")
    assert page.look("document.documentElement.scrollWidth") <= 400
    dark = page.look("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, dark[4:-1].split(","))) < 60) == (scheme == "dark")


def test_the_model_card_says_what_must_be_known_before_a_robot_moves(serve, page):
    _, url = serve(Telling())
    page.open(http(url))
    page.wait("document.querySelector('#model table')")
    card = text(page, "#model")
    for words in (
        "position_delta_x",
        "-0.05 to 0.05",
        "added to the previous target",
        "rotation vector",
        "high is open",
        "0 = terminate, 1 = continue",
        "{text}",
        "toy",
        "front, wrist",
    ):
        assert words in card, words
