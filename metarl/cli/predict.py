"""`metarl predict`: new classes from a few pictures each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from metarl.cli.options import File, Group, asks_for_help, fail, first, parse
from metarl.cli.outputs import check_outputs
from metarl.cli.targets import chosen_device
from metarl.cli.terminal import complain, say


@dataclass(frozen=True)
class PredictOptions:
    """Learn new classes from a few pictures each, and classify others.

    Attributes:
        support: folder with a folder of pictures for each class, named as the class.
        query: pictures to classify.
        json: write the probabilities of all classes here too.
        batch_norm: what pictures are normalised with, unless as in training: transductive or support.
        feature_norm: what features are compared by: as they are (none), of length 1 (l2), or first centred on the mean
            of the training images' features (cl2n, SimpleShot), for which the data of the training are read.
        device: where it computes, as for train; by default the CPU, wherever it was trained.
        trust: let the run import code of somebody else's that it names: say so only where you know that code.
    """

    support: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    query: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")]
    json: File = None
    batch_norm: Literal["transductive", "support"] | None = None
    feature_norm: Literal["none", "l2", "cl2n"] = "none"
    device: str = "cpu"
    trust: bool = False


def predict(words: Sequence[str]) -> int:
    """Learn new classes from pictures and classify others."""
    if asks_for_help(words):
        say("RUN is the folder of a few-shot run.\n")
        parse("metarl predict RUN", ["--help"], Group("command", PredictOptions))
    target, rest = first(words, "RUN", "predict")
    (options,) = parse("metarl predict RUN", rest, Group("command", PredictOptions))
    check_outputs({"--json": options.json}, inputs=options.query, within=[options.support])
    files = _class_folders(options.support)
    if not options.query:
        fail("--query names no picture; give at least one file")
    if missing := [path for path in options.query if not path.is_file()]:
        fail(f"there is no picture {missing[0]}")
    from metarl.evaluation.storage import dump_json
    from metarl.fewshot.classifier import FewShotClassifier
    from metarl.fewshot.loading import load_run
    from metarl.files import write_atomically

    run, learner = load_run(target, options.batch_norm, chosen_device(options.device), trust=options.trust)
    from metarl.fewshot.datasets.reading import some

    trained_on = run.recall("trained_on", {"classes": [str]}) or {"classes": ()}
    known = [label for label in files if label in trained_on["classes"]]
    if known:
        complain(
            f"warning: {target} was trained on {len(known)} of these classes ({some(known)}): they are not new to it"
        )
    pictures = [path for members in files.values() for path in members]
    labels = [name for name, members in files.items() for _ in members]
    classifier = FewShotClassifier(learner, feature_norm=options.feature_norm).fit(pictures, labels)
    probabilities = classifier.predict_proba(list(options.query))
    names = [str(name) for name in classifier.classes_]
    best = probabilities.argmax(1)
    widths = [max(map(len, column)) for column in ([str(path) for path in options.query], names)]
    for path, chosen, row in zip(options.query, best, probabilities, strict=True):
        say(f"{path!s:{widths[0]}}  {names[chosen]:{widths[1]}}  {row[chosen]:.3f}")
    others = "; a prediction depends on the other pictures given" if classifier.batch_norm_ == "transductive" else ""
    say(
        f"{run.learner} trained on {run.source['name']}, {len(pictures)} support pictures of {len(names)} classes; "
        f"batch norm: {classifier.batch_norm_}{others}"
    )
    if options.json is not None:
        document = {
            "version": 1,
            "run": target,
            "agent": run.learner,
            "dataset": run.source["name"],
            "batch_norm": classifier.batch_norm_,
            "feature_norm": options.feature_norm,
            "support": {name: len(members) for name, members in files.items()},
            "predictions": [
                {
                    "file": str(path),
                    "class": names[chosen],
                    "probabilities": dict(zip(names, row.tolist(), strict=True)),
                }
                for path, chosen, row in zip(options.query, best, probabilities, strict=True)
            ],
        }
        write_atomically(options.json, dump_json(document).encode())
        say(f"wrote {options.json}")
    return 0


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each class, in the order of names."""
    from metarl.fewshot.datasets.folder import EMPTY, classes_of
    from metarl.fewshot.datasets.folders import FolderStore
    from metarl.fewshot.datasets.reading import some, warn

    if not folder.is_dir():
        fail(f"there is no folder {folder}; give --support a folder with a folder of pictures for each class")
    members, passed_over = classes_of(FolderStore(folder))
    if empty := passed_over[EMPTY]:
        fail(f"{folder} has folders without a picture: {some(empty)}; put some in, or remove them")
    if len(members) < 2:
        fail(f"{folder} holds folders of pictures of {len(members)} classes; at least 2 are needed")
    warn(str(folder), passed_over)
    return {label: [folder / name for name in names] for label, names in members.items()}
