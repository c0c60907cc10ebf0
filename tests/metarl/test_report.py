from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metarl.errors import UserError
from metarl.evaluation.curve import AdaptationCurve
from metarl.learning.contract import Budget
from metarl.reporting.page import Subject, report, videos, write_report
from metarl.reporting.page.adaptation import problems
from metarl.reporting.page.provenance import versions_section
from metarl.reporting.page.training import agents_of
from metarl.runs.run import Run
from metarl.version import __version__

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MP4 = b"\0\0\0\x18ftyp"  # how such a film begins
HOSTILE = '<script>alert("x")</script>&'


def curve(agent: str = "learner", **changes: Any) -> AdaptationCurve:
    values = np.array([-40.0, -12.0, -4.0]) + np.arange(5.0)[:, None]
    fields: dict[str, Any] = {
        "agent": agent,
        "family": "metarl/Navigation2D-v0",
        "preset": "pearl",
        "split": "test",
        "task_hash": "ab" * 32,
        "seeds": (0,),
        "protocol": "as tested",
        "score": "return",
        "gradient_steps": (0, 1, 2),
        "env_steps": (0, 4000, 8000),
        "shots": None,
        "per_task": values[None],
        "random": -73.0,
        "oracle": -0.5,
        "budget": Budget(2, 40),
    }
    return AdaptationCurve(**(fields | changes))


@dataclass(frozen=True)
class Config:
    rate: float = 0.5
    note: str = "plain"


class Source:
    name = "metarl/Navigation2D-v0"

    def options(self) -> dict[str, Any]:
        return {"preset": "pearl"}


def run(
    folder: Path, iterations: int = 3, config: Config | None = None, seed: int = 0, learner: str = "learner"
) -> Run:
    made = Run.create(folder, learner=learner, config=config or Config(), source=Source(), seed=seed)
    for iteration in range(iterations):
        made.log(iteration, {"return/before": -iteration, "loss/query": iteration / 7}, {"update_s": 60.0})
    return made


class Page(HTMLParser):
    """Text, tags and what the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.loads, self.open = "", [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.loads += [
            str(value) for name, value in attrs if name in ("src", "srcset") or (name, tag) == ("href", "link")
        ]
        if tag not in ("meta", "link", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


def written(subjects: list[Subject], out: Path, **more: Any) -> Page:
    page = Page(write_report(subjects, out, **more).read_text(encoding="utf-8"))
    assert page.open == []  # every tag is closed, in order
    return page


def test_the_page_holds_comparison_training_configs_and_versions(tmp_path: Path) -> None:
    first = run(tmp_path / "a", config=Config(rate=0.25))
    second = run(tmp_path / "b", seed=4)
    subjects = [
        Subject("a", first, (curve(config={"rate": 0.25}),)),
        Subject("b", second, (curve(config={"rate": 0.5}, seeds=(4,), per_task=curve().per_task + 1),)),
    ]
    page = written(subjects, tmp_path / "page")
    assert "learner (rate=0.25)" in page.text
    assert f"{-4 + 2 + 1:.2f}" in page.text  # the last score of the second
    assert "1.00 [1.00, 1.00]" in page.text  # its difference to the first
    for words in ("ab" * 32, "2 steps of 40 episodes", "as tested", "5 of the split test", "3 min"):
        assert words in page.text
    torch = first.record["environment"]["torch"]
    assert torch in page.text
    assert '"rate": 0.25' in page.text
    assert "Options of learner: what differs" in page.text
    assert len(page.images()) == 4  # curves, profile, returns, diagnostics
    assert all(image["alt"] for image in page.images())
    assert ("a", {"href": "#part-0"}) in page.tags
    assert {attributes.get("id") for tag, attributes in page.tags if tag == "section"} >= {"part-0", "part-3"}


def test_the_device_is_that_of_the_training(tmp_path: Path) -> None:
    Run.create(tmp_path / "a", learner="learner", config=Config(), source=Source(), seed=0, device="cuda:3")
    [section] = versions_section({"a": Run.open(tmp_path / "a")})  # opened here, where it would compute on the CPU
    assert "<td>cuda:3</td>" in section.body
    assert "<td>cpu</td>" not in section.body


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    page = written([Subject("a", run(tmp_path / "a"), (curve(),))], tmp_path / "page")
    assert page.loads
    assert all(load.startswith("data:") for load in page.loads)
    assert not {"script", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert sorted(path.name for path in (tmp_path / "page").iterdir()) == ["index.html"]
    pictures = [base64.b64decode(load.partition(",")[2]).decode() for load in page.loads if "svg" in load]
    references = [url for picture in pictures for url in re.findall(r'href="([^"]*)"', picture)]
    assert all(url.startswith("#") for url in references)


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    subjects = [Subject("a", run(tmp_path / "a"), (curve(),))]
    day = date(2026, 1, 2)
    once, again = (write_report(subjects, tmp_path / name, written=day).read_bytes() for name in ("one", "two"))
    assert once == again


def test_whatever_a_file_holds_is_escaped(tmp_path: Path) -> None:
    made = run(tmp_path / "a", config=Config(note=HOSTILE), learner=HOSTILE)
    made.log(9, {f"return/{HOSTILE}": 1.0}, {})
    hostile = curve(HOSTILE, protocol=HOSTILE, family=HOSTILE, options={"x": HOSTILE}, task_hash=HOSTILE)
    path = tmp_path / "a" / "film & more.mp4"
    path.write_bytes(MP4)
    other = run(tmp_path / "b", learner=HOSTILE)
    gif = tmp_path / "a" / f"{HOSTILE.replace('/', '')}.gif"
    gif.write_bytes(b"GIF89a")
    page = written([Subject(HOSTILE, made, (hostile,)), Subject("b", other, ())], tmp_path / "page", command=HOSTILE)
    assert not {"script", "x"} & {tag for tag, _ in page.tags}
    assert f"{HOSTILE} reaches return" in page.text  # the verdict
    assert HOSTILE in page.text
    assert "film & more.mp4" in page.text


def test_a_run_without_a_curve_is_shown_with_a_note(tmp_path: Path) -> None:
    page = written([Subject("young", run(tmp_path / "a"), ())], tmp_path / "page")
    assert "young has no adaptation curve yet" in page.text
    assert "Training of learner" in page.text
    assert len(page.images()) == 2  # returns, diagnostics
    assert "Nothing here was evaluated yet" in page.text
    silent = written([Subject("silent", run(tmp_path / "b", iterations=0), ())], tmp_path / "page")
    assert "Nothing is logged in silent" in silent.text
    assert not silent.images()


def test_a_curve_without_a_run_is_enough(tmp_path: Path) -> None:
    page = written([Subject("curve.json", None, (curve(),))], tmp_path / "page")
    assert "Configurations" not in page.text
    assert "-2.00" in page.text


def test_few_tasks_have_a_row_and_a_picture_each(tmp_path: Path) -> None:
    directions = {"task_of": (0, 1), "task_arrays": {"direction": [1.0, -1.0]}, "unseen": False}
    values = np.array([[[-86.8, -40.0, -15.4], [24.1, 99.0, 217.3]]])
    page = written([Subject("curve.json", None, (curve(per_task=values, **directions),))], tmp_path / "page")
    for words in ("Each task alone", "direction=+1", "-86.80", "-15.40", "direction=-1", "24.10", "217.30"):
        assert words in page.text
    picture = base64.b64decode(str(page.images()[0]["src"]).partition(",")[2]).decode()
    assert "direction=+1" in picture
    assert "direction=-1" in picture


def test_what_diverged_is_shown(tmp_path: Path) -> None:
    values = curve().per_task.copy()
    values[0, 1, 2] = np.nan
    page = written([Subject("curve.json", None, (curve(per_task=values),))], tmp_path / "page")
    assert f"{np.nanmean(values[..., 2]):.2f}*" in page.text
    assert "20 %" in page.text
    assert "without the scores that diverged" in page.text
    assert "nan" not in page.text


def test_each_problem_is_compared_apart() -> None:
    comparisons = problems(
        [curve("a"), curve("b", split="ood"), curve("c"), curve("c", seeds=(1,)), curve("d", split="ood")]
    )
    assert [group.labels for group in comparisons] == [["a", "c"], ["b", "d"]]
    assert comparisons[0].curves[1].seeds == (0, 1)


def test_small_films_are_inlined_and_large_ones_lie_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "INLINED", 100)
    made = run(tmp_path / "a")
    small, large, gif = MP4 + b"s" * 91, MP4 + b"l" * 92, b"GIF89a" + b"g" * 93
    (tmp_path / "a" / "small.mp4").write_bytes(small)
    (tmp_path / "a" / "large 50%.mp4").write_bytes(large)
    (tmp_path / "a" / "small.gif").write_bytes(gif)
    page = written([Subject("a", made, ())], tmp_path / "page")
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "video"]
    assert sources == ["videos/0-0.mp4", "data:video/mp4;base64," + base64.b64encode(small).decode()]
    assert (tmp_path / "page" / "videos" / "0-0.mp4").read_bytes() == large
    assert page.images()[-1]["src"] == "data:image/gif;base64," + base64.b64encode(gif).decode()


def test_what_is_no_film_of_the_run_is_named_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, folder = run(tmp_path / "a"), tmp_path / "a"
    (tmp_path / "secret").write_bytes(MP4 + b"what nobody may read")
    (folder / "linked.mp4").symlink_to(tmp_path / "secret")
    (folder / "inner.mp4").symlink_to("../secret")
    (folder / "round.gif").symlink_to("round.gif")
    (folder / "device.gif").symlink_to("/dev/zero")
    (folder / "folder.gif").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "text.gif").write_bytes(b"<script>")
    (folder / "sparse.gif").write_bytes(b"GIF89a")
    os.truncate(folder / "sparse.gif", 7 << 30)
    (folder / os.fsdecode(b"\xff\x1b[2J.gif")).write_bytes(b"GIF89a")
    page = written([Subject("a", made, ())], tmp_path / "page")
    left_out = [name for name in sorted(os.listdir(folder)) if f"a: {name} is left out" in page.text]
    assert left_out == [
        *("device.gif", "folder.gif", "inner.mp4", "linked.mp4", "pipe.mp4", "round.gif", "sparse.gif", "text.gif")
    ]
    assert not [attributes for tag, attributes in page.tags if tag == "video"]
    assert page.images()[-1]["src"].startswith("data:image/gif")
    assert not {"\x1b", "\udcff"} & set(page.text)
    monkeypatch.setattr(videos, "ALL", 5)
    assert "all films together may have 5 bytes" in written([Subject("a", made, ())], tmp_path / "other").text


def test_films_are_copied_into_no_folder_that_a_link_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "INLINED", 5)
    made = run(tmp_path / "a")
    (tmp_path / "a" / "film.gif").write_bytes(b"GIF89a")
    (tmp_path / "page").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "page" / "videos").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        write_report([Subject("a", made, ())], tmp_path / "page")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_page_opens_with_the_verdict_date_code_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "commit", lambda: "0123456789ab+")
    subjects = [Subject("a", None, (curve(),)), Subject("b", None, (curve("other", per_task=curve().per_task - 1),))]
    page = written(subjects, tmp_path / "page", command="metarl report a b --out page", written=date(2026, 3, 4))
    order = [
        "In these runs learner did best on Navigation2D-v0, pearl: return -2.00",
        "One training seed of learner, other",
        f"Written 2026-03-04 by metarl {__version__}, commit 0123456789ab+.",
        "metarl report a b --out page",
        "Last scores",
    ]
    places = [page.text.find(words) for words in order]
    assert places == sorted(places), order[places.index(-1)] if -1 in places else places
    assert -1 not in places


@pytest.mark.parametrize(
    ("commits", "said"),
    [
        ((None, None), "by metarl {}, commit fedc; what commit made the runs is not known."),
        (("1111", "1111"), "by metarl {}; the runs are of commit 1111."),
        (("2222+", "1111"), "by metarl {}; the runs are of commit 1111, 2222+."),
        ((None, "1111"), "by metarl {}; the runs are of commit 1111, and of one not known."),
    ],
)
def test_the_commit_is_that_of_the_runs_where_it_is_known(
    commits: tuple[str | None, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "commit", lambda: "fedc")
    subjects = []
    for i, of_run in enumerate(commits):
        monkeypatch.setattr("metarl.runs.environment.commit", lambda known=of_run: known)
        subjects.append(Subject(str(i), run(tmp_path / str(i), iterations=1, seed=i), ()))
    assert said.format(__version__) in written(subjects, tmp_path / "page").text


def test_returns_are_large_and_all_else_is_folded(tmp_path: Path) -> None:
    page = written([Subject("a", run(tmp_path / "a"), (curve(),))], tmp_path / "page")
    folded, inside = [], 0
    for tag, attributes in page.tags:
        assert tag != "details" or "open" not in attributes
        inside += tag == "details"  # never nested, and each ends before the next section
        if tag == "section":
            inside = 0
        if tag == "img":
            folded.append((attributes["alt"] or "", inside > 0))
    assert [(alt.partition(".")[0].partition(" of learner")[0], hidden) for alt, hidden in folded] == [
        ("Adaptation curves", False),
        ("Performance profiles", True),
        ("return/before", False),
        ("loss/query", True),
    ]
    for words in ("Score after each bit of adaptation", "Tasks, seeds and protocol", "Diagnostics of the training"):
        assert words in page.text


def test_a_learner_that_logs_no_return_shows_its_loss(tmp_path: Path) -> None:
    made = Run.create(tmp_path / "a", learner="few-shot", config=Config(), source=Source(), seed=0)
    made.log(0, {"loss/query": 1.0, "mine": 2.0}, {})
    page = written([Subject("a", made, ())], tmp_path / "page")
    assert [str(image["alt"]).partition(" of ")[0] for image in page.images()] == ["loss/query", "mine"]


def test_a_run_that_logs_iterations_alone_has_no_picture(tmp_path: Path) -> None:
    made = Run.create(tmp_path / "a", learner="scratch", config=Config(), source=Source(), seed=0)
    made.log(0, {}, {"update_s": 1.0})
    page = written([Subject("a", made, ())], tmp_path / "page")
    assert "Nothing is logged in a" in page.text
    assert not page.images()


def test_seeds_of_one_agent_are_one_name(tmp_path: Path) -> None:
    rates = {"a": (0.5, 3), "b": (0.25, 0), "c": (0.5, 1), "d": (0.125, 0)}
    runs = {name: run(tmp_path / name, config=Config(rate), seed=seed) for name, (rate, seed) in rates.items()}
    assert agents_of(runs) == {"learner, rate=0.5, seeds 1, 3": ["a", "c"], "b": ["b"], "d": ["d"]}
    assert agents_of({}) == {}
    many = {str(seed): run(tmp_path / f"many{seed}", seed=seed, iterations=1) for seed in range(6)}
    assert agents_of(many) == {"learner, 6 seeds": list(many)}
    page = written([Subject(name, one, ()) for name, one in runs.items()], tmp_path / "page")
    assert "Bands: from the lowest seed to the highest." in page.text


def test_splits_stand_beside_one_another(tmp_path: Path) -> None:
    worse = curve().per_task - 10
    curves = [curve("a"), curve("b"), curve("a", split="ood", task_hash="cd" * 32, per_task=worse)]
    page = written([Subject("x", None, tuple(curves))], tmp_path / "page")
    assert "Navigation2D-v0, pearl: test beside ood" in page.text
    cells = page.text[page.text.index("test (5 tasks)") :]
    assert re.search(r"ood \(5 tasks\).*?a-2\.00 \[.*?\]-12\.00 \[.*?\]0\.9790\.841b-2\.00 \[.*?\]–0\.979–", cells)
    alone = written([Subject("x", None, (curve("a"), curve("b")))], tmp_path / "other")
    assert "beside" not in alone.text


def test_a_seed_given_twice_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a training seed occurs twice"):
        write_report([Subject("a", None, (curve(),)), Subject("b", None, (curve(),))], tmp_path / "page")
    assert not (tmp_path / "page").exists()


# In a browser


def browsed(page: Path, picture: Path) -> list[str]:
    """Draw a page in headless Chromium; what its console said."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,2400"]
    words += ["--enable-logging=stderr", "--v=0", f"--user-data-dir={picture.parent / 'profile'}"]
    done = subprocess.run(
        [browser, *words, f"--screenshot={picture}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env=os.environ | {"HOME": str(picture.parent)},
    )
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_browser_draws_the_page_and_its_console_stays_silent(tmp_path: Path) -> None:
    subjects = [Subject("a", run(tmp_path / "a"), (curve(),)), Subject("still.json", None, (curve("still"),))]
    page = write_report(subjects, tmp_path / "page")
    assert browsed(page, tmp_path / "page.png") == []
    with Image.open(tmp_path / "page.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(maxcolors=2**24) or []}
    assert {(0, 0x72, 0xB2), (0xD5, 0x5E, 0)} <= colours  # both curves are drawn
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("<main>", '<main><img src="http://127.0.0.1:9/x.png" alt="">'))
    assert browsed(broken, tmp_path / "broken.png")  # the page forbids the network, and a try to use it is noticed


def test_the_record_of_a_run_is_a_copy(tmp_path: Path) -> None:
    made = run(tmp_path / "a")
    made.record["config"]["rate"] = 9
    assert made.record["config"]["rate"] == 0.5
    assert json.loads((tmp_path / "a" / "config.json").read_text()) == made.record
