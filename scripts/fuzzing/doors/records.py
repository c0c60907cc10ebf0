"""The files of a run that somebody sends: config.json, manifest, logs, curves, films; and files of options."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from hypothesis import strategies as st

from fuzzing.case import Case, Draw, Place
from fuzzing.doors import damage
from fuzzing.doors.numbers import NAVIGATION, OFFLINE, PATIENCE
from fuzzing.kept import RUNS

MODULE = "evil"  # of the current folder, which writes the marker when it is imported
WRITES = ("run/curve*", "run/tasks*", "run", "run/*", "page", "page/*", "x.*")


def configs(draw: Draw, place: Place) -> Case:
    """A run whose config.json was damaged or forged."""
    run = a_run(draw, place)
    file = run / "config.json"
    file.write_bytes(damage.document(draw, file.read_bytes()))
    return Case(a_reader(draw), OFFLINE, may_change=WRITES, leaves=WRITES, patience=PATIENCE)


def codes(draw: Draw, place: Place) -> Case:
    """A run whose config.json names a module that lies in the current folder: nothing of it may run."""
    run = a_run(draw, place)
    _evil(place)
    record = json.loads((run / "config.json").read_bytes())
    name = draw(st.sampled_from([f"{MODULE}:Thing", MODULE, f"{MODULE}.sub:Thing", f"{MODULE}:a.b", "os:abort"]))
    where = draw(st.sampled_from(["learner", "where", "source", "config", "option", "choice"]))
    if where == "learner":
        record["learner"] = name
    elif where == "where":
        record["choices"]["where"] = name
    elif where == "source":
        record["source"]["name"] = name
    elif where == "config":
        fields = sorted(record["config"])
        chosen = [key for key in ("network", "memory", "encoder") if key in fields]
        record["config"][draw(st.sampled_from(chosen or fields))] = name
    else:
        record["choices" if where == "choice" else "source"][draw(st.sampled_from(["encoder", "options"]))] = name
    (run / "config.json").write_bytes(damage.dumped(record))
    return Case(a_reader(draw), OFFLINE, may_change=WRITES, leaves=WRITES, patience=PATIENCE)


def manifests(draw: Draw, place: Place) -> Case:
    """A run whose latest.json was damaged or forged."""
    run = a_run(draw, place)
    file = run / "checkpoints" / "latest.json"
    file.write_bytes(damage.document(draw, file.read_bytes()))
    return Case(a_reader(draw), OFFLINE, may_change=WRITES, leaves=WRITES, patience=PATIENCE)


def logs(draw: Draw, place: Place) -> Case:
    """A run with lines in its logs that no training wrote."""
    run = a_run(draw, place)
    file = run / draw(st.sampled_from(["metrics.jsonl", "timings.jsonl"]))
    line = json.loads(file.read_bytes().partition(b"\n")[0]) if file.exists() else {"iteration": 0, "loss/query": 0.5}
    lines = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["forged", "forged", "damaged", "order"]))
        if kind == "forged":
            lines.append(json.dumps(damage.forged(draw, line)).encode("utf-8", "surrogatepass"))
        elif kind == "damaged":
            lines.append(damage.damaged(draw, json.dumps(line).encode()))
        else:
            lines.append(json.dumps({**line, "iteration": draw(st.integers(-3, 10**9))}).encode())
    file.write_bytes(b"\n".join(lines) + b"\n" * draw(st.integers(0, 1)))
    return Case(a_reader(draw), OFFLINE, may_change=WRITES, leaves=WRITES, patience=PATIENCE)


def curves(draw: Draw, place: Place) -> Case:
    """Curves that were damaged or forged, compared, reported and taken as an oracle."""
    name = draw(st.sampled_from([*(f"{run}/curve.json" for run in sorted(RUNS)), "random.json"]))
    original = (place.kept / name).read_bytes()
    place.write("c.json", damage.document(draw, original))
    place.write("honest.json", original)
    several = [["c.json"], ["c.json", "honest.json"], ["honest.json", "c.json"]]
    inputs = draw(st.sampled_from(several))
    command = draw(st.sampled_from(["compare", "compare", "report", "oracle"]))
    if command == "oracle":
        few = ["--tasks", "2", "--episodes", "1", "--steps", "1"]
        words = ["evaluate", "random", "--family", NAVIGATION, "--oracle", "c.json", *few]
    elif command == "report":
        words = ["report", *inputs, "--out", "page"]
    else:
        picture = draw(st.sampled_from(["x.svg", "x.png", "x.pdf"]))
        words = ["compare", *inputs, "--out", picture, "--json", "x.json", "--markdown", "x.md"]
        words += draw(st.sampled_from([[], ["--profile", "x.profile.svg"], ["--reach", "0.5"], ["--axis", "final"]]))
    return Case(words, OFFLINE, may_change=WRITES, leaves=WRITES)


def names(draw: Draw, place: Place) -> Case:
    """Whole curves and runs, but for names that break pictures, tables, pages or terminals."""
    run = a_run(draw, place)
    file = run / "curve.json"
    curve = json.loads(file.read_bytes())
    record = json.loads((run / "config.json").read_bytes())
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(damage.NAMES[:-1]) | st.text(max_size=20))
        field = draw(
            st.sampled_from(["agent", "family", "preset", "split", "protocol", "task_hash", "options", "tasks"])
        )
        if field in ("options", "config"):
            curve[field] = {**curve[field], name: name}
        elif field == "tasks" and curve.get("task_arrays"):
            curve["task_arrays"] = {name: next(iter(curve["task_arrays"].values()))}
        else:
            curve[field] = name
        record[draw(st.sampled_from(["device", "metarl"]))] = name
        record["source"]["name"], record["environment"] = curve["family"], {name: name}
        if draw(st.booleans()):
            record["learner"] = name
        if (run / "metrics.jsonl").exists():
            (run / "metrics.jsonl").write_text(json.dumps({"iteration": 0, f"return/{name}": 0.5}) + "\n")
    file.write_bytes(damage.dumped(curve))
    (run / "config.json").write_bytes(damage.dumped(record))
    folder = draw(st.sampled_from(["run", "\x1b[31m", "$x$ {", "<b>", "a\nb", os.fsdecode(b"\xff"), "é\u202e", "%s"]))
    if folder != "run":
        run.rename(place.folder / folder)
    picture = draw(st.sampled_from(["x.svg", "x.png", "x.pdf"]))
    more = draw(
        st.sampled_from([["--profile", "x.profile.svg"], ["--per-task", "x.tasks.png"], ["--markdown", "x.md"]])
    )
    words = draw(st.sampled_from([["report", folder, "--out", "page"], ["compare", folder, "--out", picture, *more]]))
    return Case(words, OFFLINE, leaves=WRITES)


def films(draw: Draw, place: Place) -> Case:
    """A run folder with films in it that are none, links, pipes, or called what no film is called."""
    run = a_run(draw, place)
    place.write("secret", "what nobody may read " + "\0" * 100)
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(["a", "a b", '"><b>', "\x1b[31m", "é", "\u202e", "$x$", b"\xff", "-n", "&amp;"]))
        path = run / (os.fsdecode(name) + draw(st.sampled_from([".gif", ".mp4"])))
        if path.exists() or path.is_symlink():
            continue
        kind = draw(st.sampled_from(["link", "chain", "fifo", "text", "folder", "sparse", "gif", "loop", "device"]))
        if kind == "link":
            path.symlink_to(place.folder / "secret")
        elif kind == "chain":
            path.symlink_to("../secret")
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "text":
            path.write_bytes(draw(st.sampled_from([b"", b"<script>alert(1)</script>", b"\x1b[2J"])))
        elif kind == "folder":
            path.mkdir()
        elif kind == "sparse":
            path.write_bytes(b"GIF89a")
            os.truncate(path, 7 << 30)
        elif kind == "loop":
            path.symlink_to(path.name)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            path.write_bytes(b"GIF89a" + bytes(40))
    return Case(["report", "run", "--out", "page"], OFFLINE, may_change=WRITES, leaves=WRITES)


def option_files(draw: Draw, place: Place) -> Case:
    """A file of options for --config."""
    _evil(place)
    name = draw(st.sampled_from(["o.yaml", "o.json", "o.yml", "o", "config.json"]))
    kind = draw(st.sampled_from(["yaml", "json", "record", "raw"]))
    if kind == "yaml":
        data = draw(st.sampled_from(YAML)).encode("utf-8", "surrogatepass")
    elif kind == "json":
        plain = {"agent": "maml-trpo", "family": NAVIGATION, "iterations": 1, "hidden": [4], "lean": True}
        data = damage.document(draw, json.dumps(plain).encode())
    elif kind == "record":
        data = damage.document(draw, (place.kept / "navigation" / "config.json").read_bytes())
    else:
        data = draw(st.binary(max_size=40))
    place.write(name, data)
    few = ["--family", NAVIGATION, "--iterations", "1", "--tasks", "2", "--episodes", "2"]
    words = ["train", *draw(st.sampled_from([[], ["maml-trpo"]])), "--config", name, "--out", "run"]
    return Case([*words, *draw(st.sampled_from([[], few]))], OFFLINE, leaves=("run",), patience=PATIENCE)


YAML = [
    "",
    "a: b: c",
    "!!python/object/apply:os.system ['touch MARKER']",
    "x: !!python/name:os.system ''",
    "- 1\n- 2",
    "a: &a [1, 2]\nhidden: *a",
    "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "\n".join(f"{c}: &{c} [{','.join(['*' + p] * 9)}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
    "a: &a {k: 1}\n"
    + "\n".join(f"{c}: &{c} {{<<: [{','.join(['*' + p] * 9)}]}}" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
    "a: &a [*a]",
    "hidden: " + "[" * 2000 + "]" * 2000,
    "hidden: [" + "1," * 100_000 + "1]",
    "1: 2",
    "? [a]\n: 1",
    "? {a: b}\n: 1",
    "iterations: 1\niterations: 2",
    "iterations: 2024-01-01",
    "iterations: !!binary aGVsbG8=",
    "iterations: .nan",
    "iterations: 1" + "0" * 6000,
    "iterations: 1_000:59:59",
    "x" * 200_000 + ": 1",
    '"\\e[31mred": 1',
    'family: "\\e[31mred"',
    "family: evil:Thing",
    "agent: evil",
    "agent: evil:Thing",
    "callback: evil:Thing",
    "network: evil:Thing",
    "out: ../elsewhere",
    "config: o.yaml",
    "%YAML 9.9\n---\na: 1",
    "a: 1\n---\nb: 2",
    'a: "\\uD800"',
    "\t- x",
]


def _evil(place: Place) -> None:
    marks = f"open({str(place.marker)!r}, 'w').close()\n\nclass Thing:\n    pass\n\n\nclass a:\n    b = Thing\n"
    place.write(f"{MODULE}.py", marks)


def a_run(draw: Draw, place: Place) -> Path:
    """A run in the place, of any kind."""
    return Path(shutil.copytree(place.kept / draw(st.sampled_from(sorted(RUNS))), place.folder / "run"))


def a_reader(draw: Draw) -> list[str]:
    """A command that reads the run."""
    few = ["--tasks", "2", "--episodes", "1", "--steps", "1"]
    readers = [
        ["evaluate", "run", *few],
        ["evaluate", "run", *few, "--data-root", "."],
        ["report", "run", "--out", "page"],
        ["compare", "run", "--out", "x.svg"],
        ["video", "run", "--out", "x.gif", "--steps", "1", "--episodes", "1"],
        ["train", "--resume", "run"],
        ["train", "--config", "run", "--out", "other"],
        ["train", "--config", "run/config.json", "--out", "other"],
        ["predict", "run", "--support", ".", "--query", "evil.py"],
    ]
    return draw(st.sampled_from(readers))
