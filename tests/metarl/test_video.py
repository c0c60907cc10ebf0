"""Films: what a recorder sees, how recordings are put together, and the command."""

import itertools
import os
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from metarl.agents import maml_trpo, rl2
from metarl.envs import make_family
from metarl.errors import UserError
from metarl.learning.contract import Budget, Filmable
from metarl.learning.memory_adaptation import MemoryAgent
from metarl.reporting import films
from metarl.reporting.films import side_by_side, write
from metarl.runs.run import Run
from metarl.sampling.recording import Frames, Recorder, Recording, task_in_words
from metarl.seeding import Key
from metarl.tasks import Tasks, TaskVectorEnv

NAVIGATION = "metarl/Navigation2D-v0"
STRIP = round(2 * films.MARGIN + films.LINE * (films.TITLE + films.SMALL))  # of a title of one line


@dataclass(frozen=True)
class Agents:
    """Barely trained, each in 2D navigation."""

    maml: maml_trpo.Adapting
    rl2: MemoryAgent


@pytest.fixture(scope="module")
def agents(tmp_path_factory):
    family, folder = make_family(NAVIGATION), tmp_path_factory.mktemp("runs")
    loaded = []
    for module, small in (
        (maml_trpo, {"tasks": 2, "episodes": 2}),
        (rl2, {"trials": 4, "minibatches": 1, "trial_episodes": 3, "hidden": 8}),
    ):
        config = module.Config(iterations=1, threads=1, **small)
        run = Run.create(folder / module.__name__, learner=module.__name__, config=config, source=family, seed=0)
        module.train(config, family, run)
        loaded.append(module.load(run, family))
    return Agents(*loaded)


def recording(steps, shade=0, size=(20, 31)):
    pictures = [np.full((*size, 3), shade + i, np.uint8) for i in range(steps + 1)]
    return Recording("title", pictures, [1.0] * steps)


def read(path):
    """The pictures of a film `(n, height, width, 3)`, and its pictures a second."""
    if path.suffix == ".gif":
        with Image.open(path) as film:
            pictures, step = [], film.info["duration"]
            for i in range(film.n_frames):  # pictures that stay are stored once
                film.seek(i)
                pictures += [np.asarray(film.convert("RGB"))] * round(film.info["duration"] / step)
            return np.stack(pictures), 1000 / step
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="the video extra is not installed")
    reader = ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]), meta["fps"]


def check_pane(recordings, task):
    """Titles fit on a line, the task is told, and pictures need no scaling."""
    for one in recordings:
        assert len(films.wrapped(one.title, films.font(films.TITLE, bold=True), films.PANE - 2 * films.MARGIN)) == 1
        assert one.task.startswith(task)
        assert all(picture.shape == (360, 480, 3) for picture in one.frames)


def test_maml_films_one_episode_before_and_one_after_with_the_same_luck(agents):
    family = agents.maml.family
    task = family.fixed("test", 1)
    before, after = agents.maml.film(task, Budget(2, 3), seed=5)
    assert before.title.startswith("before adaptation: mean return -")
    assert after.title.startswith("after 2 gradient steps: mean return -")
    for shown in (before, after):
        assert len(shown.frames) == len(shown.rewards) + 1 <= family.horizon + 1
    np.testing.assert_array_equal(before.frames[0], after.frames[0])
    assert before.rewards != after.rewards
    goal = task.arrays["goal"][0]  # maml2017 pays minus the distance, and the first step is at most .1 along an axis
    assert before.rewards[0] == pytest.approx(-np.hypot(*goal), abs=0.15)
    again = agents.maml.film(task, Budget(2, 3), seed=5)[1]
    assert (again.title, again.rewards) == (after.title, after.rewards)
    [other] = agents.maml.film(task, Budget(0, 3), seed=6)  # no adaptation: nothing to be seen after it
    assert other.rewards != before.rewards
    check_pane([before, after], "goal=(")


def test_rl2_films_the_first_and_the_last_episode_of_one_trial(agents):
    task = agents.rl2.family.fixed("test", 1)
    first, last = agents.rl2.film(task, Budget(3, 40), seed=1)
    assert (first.title, last.title) == ("episode 1 of 3, one trial", "episode 3 of 3, one trial")
    played = agents.rl2.act(task, 1, Key(1)("rl2", "film"))
    returns = played.returns()[0, 0]
    assert sum(first.rewards) == pytest.approx(float(returns[0]), rel=1e-5)
    assert sum(last.rewards) == pytest.approx(float(returns[2]), rel=1e-5)
    np.testing.assert_array_equal(first.frames[0], last.frames[0])  # every episode starts at the origin
    assert len(first.frames) == len(first.rewards) + 1
    np.testing.assert_array_equal(first.frames[-1], first.frames[-2])  # the last state is already reset away
    assert not np.array_equal(last.frames[-1], last.frames[-2])
    check_pane([first, last], "goal=(")


def test_who_can_be_filmed_is_told_by_what_it_can_do(agents):
    assert isinstance(agents.maml, Filmable)
    assert isinstance(agents.rl2, Filmable)
    assert not isinstance(object(), Filmable)


class Numbered(TaskVectorEnv):
    """Draws how many pictures it drew before."""

    def __init__(self):
        self.drawn = itertools.count()

    _start = _advance = None
    tasks = Tasks({"goal": [[0.0, 1.0]]})

    def render_frame(self, index):
        assert index == 0
        return np.full((2, 2, 3), next(self.drawn), np.uint8)


def test_a_recorder_cuts_recordings_out_of_what_it_saw():
    Numbered.__abstractmethods__ = frozenset()
    recorder, env = Recorder(), Numbered()
    for reward in (0.0, 1.0, 2.0, 3.0, 4.0):
        recorder(env, np.array([reward, 99.0], np.float32))

    def seen(cut):
        return [int(picture[0, 0, 0]) for picture in cut.frames], list(cut.rewards)

    assert seen(recorder.cut("all")) == ([0, 1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0])
    assert seen(recorder.cut("first", 0, 2)) == ([0, 1, 1], [1.0, 2.0])
    assert seen(recorder.cut("second", 2, 4)) == ([2, 3, 4], [3.0, 4.0])


def test_frames_stand_side_by_side_and_the_shorter_recording_waits():
    shown = [np.asarray(frame) for frame in side_by_side([recording(5), recording(2, 100)], hold=2)]
    assert len(shown) == 6 + 2
    height, width, _ = shown[0].shape
    assert width == 2 * films.PANE + films.GAP
    assert height == STRIP + round(films.PANE * 20 / 31)
    assert height % 2 == width % 2 == 0
    centre = [(int(frame[-10, 10, 0]), int(frame[-10, -10, 0])) for frame in shown]
    assert centre == [(0, 100), (1, 101), (2, 102), (3, 102), (4, 102), (5, 102), (5, 102), (5, 102)]
    assert (shown[0] != shown[1])[:STRIP].any()  # the reward so far is written above


def test_more_recordings_than_columns_go_below():
    [frame] = side_by_side([recording(0, shade) for shade in (10, 20, 30)], columns=2)
    high = STRIP + round(films.PANE * 20 / 31)
    assert frame.size == (2 * films.PANE + films.GAP, 2 * high + films.GAP)
    shown = np.asarray(frame)[..., 0]
    assert shown[high - 10, [10, -10]].tolist() == [10, 20]
    assert shown[-10, 10] == 30


@pytest.mark.parametrize("size", [(20, 31), (360, 480), (500, 500), (900, 300), (1, 1), (1080, 1920), (3, 4000)])
def test_a_pane_is_480_pixels_wide_whatever_the_picture(size):
    [frame] = side_by_side([recording(0, 7, size)])
    (width, height), scale = frame.size, min(films.PANE / size[1], films.PANE / size[0])
    assert width == films.PANE
    assert height == pytest.approx(STRIP + max(1, scale * size[0]), abs=1.5)
    drawn = (np.asarray(frame)[STRIP:] == 7).all(-1)
    assert drawn.any(0).sum() == pytest.approx(max(1, scale * size[1]), abs=1.5)


def written(recordings):
    """The lines of the strips of each frame, as words, letters and where they begin; and the frames."""
    lines, frames, text = [], [], ImageDraw.ImageDraw.text

    def writes(pen, place, words, *more, font, **style):
        lines.append((words, font, place))
        text(pen, place, words, *more, font=font, **style)

    each = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "text", writes)
        for frame in side_by_side(recordings):
            frames.append(frame)
            each.append(list(lines))
            lines.clear()
    return each, frames


def test_the_strip_says_step_reward_and_task():
    one = replace(recording(2), title="after 1 gradient step", rewards=[1.5, -3.0], task="goal=(0.5, 1)")
    each, frames = written([one])
    assert [[words for words, *_ in lines] for lines in each] == [
        ["after 1 gradient step", f"step {i} of 2, reward so far {so_far}", "task: goal=(0.5, 1)"]
        for i, so_far in enumerate(["0.0", "1.5", "-1.5"])
    ]
    dark = (np.asarray(frames[0]) < 110).all(-1)
    for _, letters, (x, y) in each[0]:
        assert dark[round(y) : round(y + letters.size), round(x) : round(x) + 40].any(), "written in dark letters"
    each, _ = written([replace(one, rewards=[1e30, 1e30], title="")])
    assert [lines[0][0] for lines in each][1:] == [
        "step 1 of 2, reward so far 1e+30",
        "step 2 of 2, reward so far 2e+30",
    ]


@given(
    titles=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=150) | st.text("Wm i", min_size=60, max_size=200),
        min_size=1,
        max_size=3,
    )
)
@example(titles=["W" * 200])
@example(titles=["after adaptation " * 20, "short"])
@settings(max_examples=30, deadline=None)
def test_no_title_is_cut(titles):
    [lines], [frame] = written([replace(recording(0), title=title) for title in titles])
    strip = frame.height - round(films.PANE * 20 / 31)
    for i, title in enumerate(titles):
        left = i * (films.PANE + films.GAP)
        own = [line for line in lines if left <= line[2][0] < left + films.PANE]
        shown = [line for line in own if not line[0].startswith("step 0 of 0")]
        assert "".join(words for words, *_ in shown).replace(" ", "") == "".join(title.split())
        for words, letters, (x, y) in own:
            assert len(words) == 1 or x + letters.getlength(words) <= left + films.PANE
            assert y + letters.size <= strip


@given(
    pictures=st.lists(arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 4), st.just(3))), max_size=5),
    start=st.integers(-6, 6),
    stop=st.integers(-6, 6),
)
def test_frames_come_back_as_they_were(pictures, start, stop):
    kept = Frames()
    for picture in pictures:
        kept.append(picture)
    assert len(kept) == len(pictures)
    for back, picture in zip([*kept[start:stop], *(kept + kept)], [*pictures[start:stop], *pictures * 2], strict=True):
        np.testing.assert_array_equal(back, picture)


def test_a_long_episode_takes_a_fraction_of_its_pictures_memory():
    kept = Frames()
    for _ in range(20):
        kept.append(np.full((360, 480, 3), 7, np.uint8))
    assert sum(len(packed) for _, packed in kept._packed) < 20 * 360 * 480 * 3 / 50


def test_a_task_in_words():
    assert task_in_words({"goal": np.array([0.25, -1.0])}) == "goal=(0.25, -1)"
    assert task_in_words({"length": np.array(0.5), "mass": 2.0}) == "length=0.5, mass=2"
    assert (
        task_in_words({"seed": np.array(1234567), "wet": np.array([True, False])}) == "seed=1234567, wet=(True, False)"
    )
    assert task_in_words({"transition": np.ones((3, 2, 3))}) == ""


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".GIF"])
def test_a_film_is_written_whole(suffix, tmp_path):
    path = tmp_path / f"film{suffix}"
    if suffix == ".mp4":
        pytest.importorskip("imageio_ffmpeg", reason="the video extra is not installed")
    write([recording(39), recording(9, 100)], path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    pictures, fps = read(path.rename(tmp_path / f"read{suffix.lower()}"))
    assert fps == pytest.approx(8, rel=0.05)  # 40 pictures in five seconds
    assert pictures.shape[0] == pytest.approx(48, abs=1)
    assert pictures.shape[1:] == (STRIP + round(films.PANE * 20 / 31), 2 * films.PANE + films.GAP, 3)
    np.testing.assert_allclose(pictures[-1][-10, [10, -10]].mean(-1), [39, 109], atol=6)


def test_a_film_may_be_as_fast_as_asked(tmp_path):
    write([recording(20)], tmp_path / "film.gif", fps=40)
    pictures, fps = read(tmp_path / "film.gif")
    assert fps == pytest.approx(10, rel=0.05)  # of a GIF every fourth picture is kept
    assert len(pictures) == pytest.approx((21 + 40) / 4, abs=1)


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"film.avi: the name must end in .mp4 or .gif"):
        write([recording(1)], tmp_path / "film.avi")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match=r"pip install 'metarl-suite\[video\]', or give a name that ends in .gif"):
        write([recording(1)], tmp_path / "film.mp4")
    write([recording(1)], tmp_path / "film.gif")


def test_a_failed_film_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "film.gif"
    write([recording(1)], path)
    old = path.read_bytes()

    def fails(pictures, path, fps):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(films, "_write_gif", fails)
    with pytest.raises(UserError, match=r"cannot write .*film.gif: disk full"):
        write([recording(2)], path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["film.gif"]


@pytest.mark.parametrize(
    ("have", "environment", "expected"),
    [
        ({"EGL", "OSMesa"}, {}, "egl"),
        ({"OSMesa"}, {}, "osmesa"),
        (set(), {}, None),
        ({"EGL"}, {"MUJOCO_GL": "glfw"}, "glfw"),
        ({"EGL"}, {"DISPLAY": ":0"}, None),
    ],
)
def test_without_a_display_mujoco_draws_into_memory(have, environment, expected, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: name if name in have else None)
    films.draw_without_display()
    assert os.environ.get("MUJOCO_GL") == expected
    monkeypatch.delenv("MUJOCO_GL", raising=False)
