"""`metarl predict`: new classes from a few pictures each, by a run's learner or somebody else's frozen encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from metarl.cli.options import File, Group, Name, asks_for_help, fail, first, parse
from metarl.cli.outputs import check_outputs
from metarl.cli.targets import chosen_device
from metarl.cli.terminal import complain, say

if TYPE_CHECKING:
    from metarl.fewshot.classifier import FewShotClassifier

UNKNOWN = "unknown"  # what a picture is called that is like no class


@dataclass(frozen=True)
class PredictOptions:
    """Learn new classes from a few pictures each, and classify others.

    Attributes:
        support: folder with a folder of pictures for each class, named as the class.
        query: pictures to classify; or one folder like that of --support, whose names then tell how many are right.
        json: write the probabilities of all classes here too.
        estimate: say what accuracy to expect, from the support pictures alone.
        unknown: call pictures unknown that are like no class, as many of the known as this share, such as 0.05.
        encoder: in a run's place, a frozen encoder of somebody else's: timm:NAME, file:PATH of weights with --arch, or
            file:FOLDER of timm's.
        arch: what the weights of file:PATH belong to: a name of timm's, or your own as module:Name.
        rule: how features become classes; the run's own unless given, centroid for --encoder.
        no_cache: neither read nor write features of --encoder in the user's cache folder.
        batch_norm: what pictures are normalised with, unless as in training: transductive or support.
        feature_norm: what features are compared by: as they are (none), of length 1 (l2), or first centred (cl2n,
            SimpleShot) on the mean of the training images' features, for which the data of the training are read; with
            --encoder on the mean of the support pictures' features.
        device: where it computes, as for train; by default the CPU, wherever it was trained.
        trust: let the run import code of somebody else's that it names: say so only where you know that code.
    """

    support: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    query: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")]
    json: File = None
    estimate: bool = False
    unknown: float | None = None
    encoder: Name = None
    arch: Name = None
    rule: Literal["centroid", "logistic", "baseline", "baseline++"] | None = None
    no_cache: bool = False
    batch_norm: Literal["transductive", "support"] | None = None
    feature_norm: Literal["none", "l2", "cl2n"] = "none"
    device: str = "cpu"
    trust: bool = False


@dataclass(frozen=True)
class _Model:
    """What classifies.

    Attributes:
        classifier: not fitted yet.
        words: what it is, for people.
        record: what it is, for the JSON.
        folder: of the run, if it is one.
        known: classes it was trained on.
    """

    classifier: FewShotClassifier
    words: str
    record: dict[str, Any]
    folder: Path | None
    known: Sequence[str]


def predict(words: Sequence[str]) -> int:
    """Learn new classes from pictures and classify others."""
    if asks_for_help(words):
        say("RUN is the folder of a few-shot run; --encoder stands in its place.\n")
        parse("metarl predict [RUN]", ["--help"], Group("command", PredictOptions))
    by_encoder = bool(words) and words[0].startswith("--") and "--encoder" in {word.partition("=")[0] for word in words}
    target, rest = (None, words) if by_encoder else first(words, "RUN", "predict")
    (options,) = parse("metarl predict RUN", rest, Group("command", PredictOptions))
    check_outputs({"--json": options.json}, inputs=options.query, within=[options.support])
    support = class_folders(options.support, "--support", least=2)
    queries, truth = _queries(options, list(support))
    if options.unknown is not None and not 0 < options.unknown < 1:
        fail(f"--unknown is the share of known pictures that may be called unknown, in (0, 1), not {options.unknown}")
    if options.unknown is not None and UNKNOWN in support:
        fail(
            f"--support has a class {UNKNOWN}, which is what --unknown calls pictures like no class: rename its folder"
        )
    model = _model(target, options)
    from metarl.fewshot.datasets.reading import some

    known = [label for label in support if label in model.known]
    if known:
        complain(
            f"warning: {target} was trained on {len(known)} of these classes ({some(known)}): they are not new to it"
        )
    pictures = [path for members in support.values() for path in members]
    labels = [name for name, members in support.items() for _ in members]
    classifier = model.classifier.fit(pictures, labels)
    names = [str(name) for name in classifier.classes_]
    limit = None if options.unknown is None else classifier.unknown(options.unknown)
    probabilities = classifier.predict_proba(queries)
    best = [UNKNOWN if limit and row.max() < limit.threshold else names[row.argmax()] for row in probabilities]
    widths = [max(map(len, column)) for column in ([str(path) for path in queries], [*names, *best])]
    for path, chosen, row in zip(queries, best, probabilities, strict=True):
        say(f"{path!s:{widths[0]}}  {chosen:{widths[1]}}  {row.max():.3f}")
    others = "; a prediction depends on the other pictures given" if classifier.batch_norm_ == "transductive" else ""
    say(
        f"{model.words}, {len(pictures)} support pictures of {len(names)} classes; "
        f"batch norm: {classifier.batch_norm_}{others}"
    )
    document: dict[str, Any] = {
        "version": 1,
        **model.record,
        "batch_norm": classifier.batch_norm_,
        "feature_norm": options.feature_norm,
        "support": {name: len(members) for name, members in support.items()},
        "predictions": [
            {"file": str(path), "class": chosen, "probabilities": dict(zip(names, row.tolist(), strict=True))}
            for path, chosen, row in zip(queries, best, probabilities, strict=True)
        ],
    }
    if truth is not None:
        document["judged"] = _judged(truth, best, names)
    if limit is not None:
        strangers = "" if limit.unknown is None else f", and {limit.unknown:.0%} of those of classes left out"
        say(f"unknown: below {limit.threshold:.3f}; of held-out support pictures {limit.known:.0%} would be{strangers}")
        document["unknown"] = asdict(limit)
    if options.estimate:
        document["estimate"] = _estimated(model)
    if options.json is not None:
        from metarl.evaluation.storage import dump_json
        from metarl.files import write_atomically

        write_atomically(options.json, dump_json(document).encode())
        say(f"wrote {options.json}")
    return 0


def _model(target: str | None, options: PredictOptions) -> _Model:
    """The classifier of a run or of an encoder.

    Raises:
        UserError: there is no such run or encoder, or options that do not go together.
    """
    from metarl.fewshot.classifier import FewShotClassifier

    device = chosen_device(options.device)
    if options.encoder is None:
        if options.arch is not None or options.no_cache:
            fail("--arch and --no-cache go with --encoder")
        from metarl.fewshot.loading import load_run

        assert target is not None
        run, learner = load_run(target, options.batch_norm, device, trust=options.trust)
        trained_on = run.recall("trained_on", {"classes": [str]}) or {"classes": ()}
        words = f"{run.learner} trained on {run.source['name']}"
        record = {"run": target, "agent": run.learner, "dataset": run.source["name"]}
        made = FewShotClassifier(learner, rule=options.rule, feature_norm=options.feature_norm)
        return _Model(made, words, record, Path(target), trained_on["classes"])
    if target is not None:
        fail(f"give a run, {target}, or --encoder, not both")
    if options.batch_norm is not None:
        fail("--batch-norm is for a run: an encoder is frozen, with the statistics it was trained with")
    from metarl.fewshot.pretrained.cache import FeatureCache
    from metarl.fewshot.pretrained.loading import load_pretrained

    encoder = load_pretrained(options.encoder, options.arch, None if options.no_cache else FeatureCache())
    rule = options.rule or "centroid"
    made = FewShotClassifier(encoder, rule=rule, feature_norm=options.feature_norm, device=device)
    record = {"encoder": options.encoder, "arch": options.arch, "rule": rule}
    return _Model(made, f"{rule} on {options.encoder}, frozen", record, None, ())


def _queries(options: PredictOptions, classes: Sequence[str]) -> tuple[list[Path], list[str] | None]:
    """The pictures to classify, and their classes where they lie in folders of these names."""
    if not options.query:
        fail("--query names no picture; give at least one file, or a folder with a folder for each class")
    if len(options.query) == 1 and options.query[0].is_dir():
        members = class_folders(options.query[0], "--query", least=1)
        if options.unknown is None and (strange := [name for name in members if name not in classes]):
            from metarl.fewshot.datasets.reading import some

            fail(f"--query has classes that --support has not ({some(strange)}): add them, or give --unknown 0.05")
        paths = [path for each in members.values() for path in each]
        return paths, [name if name in classes else UNKNOWN for name, each in members.items() for _ in each]
    if missing := [path for path in options.query if not path.is_file()]:
        fail(f"there is no picture {missing[0]}")
    return list(options.query), None


def _judged(truth: Sequence[str], best: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """The accuracy of all and of each class, and the confusion matrix; said, and for the JSON."""
    columns = [*names, *({UNKNOWN} & {*truth, *best} - {*names})]
    rows = [name for name in columns if name in truth]
    counts = {
        row: {c: sum(t == row and b == c for t, b in zip(truth, best, strict=True)) for c in columns} for row in rows
    }
    right = sum(counts[row][row] for row in rows)
    width = max(8, *map(len, columns))
    say("")
    say(f"accuracy {right / len(truth):.1%} ({right} of {len(truth)}); a row is a class, a column what it was called")
    say(" ".join([" " * width, *(f"{c:>{width}}" for c in columns), f"{'right':>{width}}"]))
    for row in rows:
        share = counts[row][row] / sum(counts[row].values())
        say(" ".join([f"{row:{width}}", *(f"{counts[row][c]:>{width}}" for c in columns), f"{share:>{width}.1%}"]))
    return {"accuracy": right / len(truth), "confusion": counts}


def _estimated(model: _Model) -> dict[str, Any]:
    """What accuracy to expect; said, and for the JSON."""
    from metarl.fewshot.estimate import with_run

    made = model.classifier.estimate()
    if model.folder is not None:
        made = with_run(made, model.folder, len(model.classifier.classes_))
    if made.accuracy is None:
        say(f"estimate: none; {made.basis}")
    else:
        say(f"estimate: {made.accuracy:.1%}, 95 % interval {made.low:.1%} to {made.high:.1%} ({made.basis})")
    return asdict(made)


def class_folders(folder: Path, option: str, least: int) -> dict[str, list[Path]]:
    """The pictures of each class, in the order of names."""
    from metarl.fewshot.datasets.folder import EMPTY, classes_of
    from metarl.fewshot.datasets.folders import FolderStore
    from metarl.fewshot.datasets.reading import some, warn

    if not folder.is_dir():
        fail(f"there is no folder {folder}; give {option} a folder with a folder of pictures for each class")
    members, passed_over = classes_of(FolderStore(folder))
    if empty := passed_over[EMPTY]:
        fail(f"{folder} has folders without a picture: {some(empty)}; put some in, or remove them")
    if len(members) < least:
        fail(f"{folder} holds folders of pictures of {len(members)} classes; at least {least} are needed")
    warn(str(folder), passed_over)
    return {label: [folder / name for name in names] for label, names in members.items()}
