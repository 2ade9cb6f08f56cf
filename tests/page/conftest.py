"""A real browser for the pages. What is missing fails, with how to get it: a page that nobody opened is not tested."""

import json
import shutil

import pytest
from page.planted import HOSTILE, SHOWN, trace, traces
from report.planted import AUDIT, evaluate, plant

from vergence.report.compare import compare
from vergence.report.looks import write_looks
from vergence.report.page import report as write_report
from vergence.scenes.embedded import of_key
from vergence.train.config import Config
from vergence.train.config_file import to_yaml

ROLLOUT = ("step", "scene", "world", "sibling", "question", "gold", "kind", "response", "extracted", "status", "reward")
ROLLOUT += ("advantage", "finish")
INSTALL = "install it with `apt-get install chromium` (Debian, Ubuntu), or put one on the PATH"


@pytest.fixture(scope="session")
def chromium():
    """The system's own Chromium, without a window."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("playwright is missing: run `make test-page`, or pip install 'vergence[page]'")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.fail(f"no Chromium found: {INSTALL}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """(path, width, scheme) -> a page opened from disk. At the end: no error was told, and nothing left the machine."""
    troubles, contexts = [], []

    def opened(path, *, width=1280, scheme="light", **options):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, service_workers="block", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(f"console: {message.type} {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        # a context reports what it asks for whether or not it is answered
        own = ("data:", path.as_uri())
        context.on("request", lambda one: one.url.startswith(own) or troubles.append(f"asked for {one.url}"))
        page.goto(path.as_uri())
        return page

    opened.troubles = troubles
    yield opened
    for context in contexts:
        context.close()
    assert not troubles


@pytest.fixture(scope="session")
def looks(tmp_path_factory):
    """A page of eight scenes with four responses each."""
    path = tmp_path_factory.mktemp("looks") / "looks.html"
    return write_looks(path, "Eight scenes", traces(), of_key, SHOWN, about="planted")


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """A sample of 1,000 of 1,600 rollouts of some 70 tokens, with nine statistics each."""
    path = tmp_path_factory.mktemp("large") / "looks.html"
    return write_looks(path, "Many", traces(200, 8, longer=" and so" * 25), of_key, SHOWN)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """A page on which every text is hostile."""
    scene = of_key("bars/train/0/0")
    records = []
    for number, (name, text) in enumerate(HOSTILE.items()):
        fields = dict.fromkeys(("question", "gold", "extracted", "world"), text)
        one = trace(scene, text, sibling=number) | fields | {"selected": {text: [1]}, "views": ["image", text]}
        one["stats"] |= {f"kl {name}{text[:1000]}": one["stats"]["entropy"]}
        records.append(one)
    return write_looks(tmp_path_factory.mktemp("hostile") / "looks.html", HOSTILE["script"], records, of_key, SHOWN)


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """The report of a run of two steps, evaluated and audited, with the viewer inside."""
    run = tmp_path_factory.mktemp("run")
    records = traces()
    (run / "config.yaml").write_text(to_yaml(Config(method="papo", steps=2)))
    rollouts = [{name: one[name] for name in ROLLOUT} | {"tokens": len(one["tokens"])} for one in records]
    measured = [{"step": step, "entropy": 1 / step, "rewards/accuracy": step / 4, "reward": 0.1} for step in (1, 2)]
    for name, these in (("metrics", measured), ("rollouts", rollouts), ("traces", records)):
        (run / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in these))
    evaluate(run, "before", "after", "after-blind", error=None)
    (run / "evaluation" / "audit.json").write_text(json.dumps(AUDIT))
    return write_report(run)


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    """The page of three runs of two steps, evaluated and one of them audited."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [plant(folder / method, steps=2, method=method) for method in ("grpo", "papo", "cppo")]
    for place, run in enumerate(runs):
        evaluate(run, "before", "after", "after-blind", right={"after": 1 + place}, error=None)
    (runs[1] / "evaluation" / "audit.json").write_text(json.dumps(AUDIT))
    return compare(runs, folder / "comparison.html")
