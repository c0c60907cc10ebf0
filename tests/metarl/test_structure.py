"""What a learner takes for its own state: the names, types, shapes and dtypes of a fresh one."""

import copy

import pytest
import torch
from planted import plant
from test_finite import ACTING, FEW_SHOT, GLYPHS, begin, tiny, train

from metarl import registry
from metarl.envs import make_family
from metarl.errors import UserError
from metarl.runs import structure
from metarl.runs.run import Run

SPOILT = ["missing", "strange", "shape", "dtype", "type", "none", "longer"]


def adam(*shapes):
    parameters = [torch.ones(shape, requires_grad=True) for shape in shapes]
    optimiser = torch.optim.Adam(parameters, 0.1)
    sum(p.sum() for p in parameters).backward()
    optimiser.step()
    return optimiser


LIKE = {"params": {"w": torch.zeros(2, 3), "b": torch.zeros(3)}, "penalties": [0.1, 0.2], "scale": 1.0, "n": int}
MISFITS = [
    (lambda s: s.pop("params"), "['params'] is None there and a dictionary here"),
    (lambda s: s["params"].pop("w"), "['params']['w'] is only here"),
    (lambda s: s["params"].update(v=1), "['params']['v'] is only there"),
    (
        lambda s: s["params"].update(w=torch.zeros(3, 2)),
        "['params']['w'] is (3, 2) float32 there and (2, 3) float32 here",
    ),
    (lambda s: s["params"].update(w=torch.zeros(2, 3).double()), "(2, 3) float64 there and (2, 3) float32 here"),
    (lambda s: s["penalties"].append(0.1), "['penalties'] is a list there and a list of 2 here"),
    (lambda s: s["penalties"].__setitem__(0, "x"), "['penalties'][0] is 'x' there and float here"),
    (lambda s: s.update(scale=torch.ones(())), "['scale'] is () float32 there and float here"),
    (lambda s: s.update(n=True), "['n'] is True there and int here"),
]


@pytest.mark.parametrize(("spoil", "line"), MISFITS)
def test_what_does_not_fit_is_named(spoil, line):
    state = copy.deepcopy(LIKE) | {"n": 3, "more": "is allowed"}
    structure.check(state, LIKE, "it")
    spoil(state)
    with pytest.raises(UserError) as caught:
        structure.check(state, LIKE, "it")
    assert line in str(caught.value)


OPTIMISER = [
    (lambda s: s.pop("state"), "is only here"),
    (lambda s: s["param_groups"][0]["params"].append(2), "is not of 2 parameters"),
    (lambda s: s["param_groups"].append(s["param_groups"][0]), "is not of 2 parameters"),
    (lambda s: s["param_groups"][0].update(params=[0, 0]), "does not count the parameters"),
    (lambda s: s["param_groups"][0].update(lr="fast"), "['lr'] is 'fast' there and float here"),
    (lambda s: s["param_groups"][0].update(betas=(0.9,)), "['betas'] is a tuple there"),
    (lambda s: s["state"].update({7: {}}), "['state'][7] is of no parameter here"),
    (
        lambda s: s["state"][0].update(exp_avg=torch.zeros(3)),
        "[0]['exp_avg'] is (3,) float32 there and (2, 3)",
    ),
    (lambda s: s["state"][0].update(step="many"), "['state'][0]['step'] is 'many' there"),
]


@pytest.mark.parametrize(("spoil", "line"), OPTIMISER)
def test_what_does_not_fit_an_optimiser_is_named(spoil, line):
    mine = adam((2, 3), (3,))
    state = {"optimiser": copy.deepcopy(mine.state_dict())}
    structure.check(state, {"optimiser": adam((2, 3), (3,))}, "it")
    structure.check(
        {"optimiser": torch.optim.Adam(mine.param_groups[0]["params"]).state_dict()}, {"optimiser": mine}, "it"
    )
    spoil(state["optimiser"])
    with pytest.raises(UserError) as caught:
        structure.check(state, {"optimiser": mine}, "it")
    assert line in str(caught.value)


def places(tree, above=()):
    """The keys to every part of a state, from the whole down."""
    yield above
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield from places(item, (*above, key))


def spoilt(state, place, how):
    """A copy of a state, another kind of thing at one place."""
    state = copy.deepcopy(state)
    *above, key = place
    part = state
    for name in above:
        part = part[name]
    value = part[key]
    if how == "missing":
        del part[key]
    elif how == "strange":
        part[key] = {"strange": value}
    elif how == "shape":
        part[key] = value[..., None].repeat_interleave(2, -1) if isinstance(value, torch.Tensor) else [value, value]
    elif how == "dtype":
        part[key] = value.to(torch.complex64) if isinstance(value, torch.Tensor) else str(value)
    else:
        part[key] = {"type": "text", "none": None, "longer": [value] * 3}[how]
    return state


@pytest.mark.parametrize("name", [*ACTING, *FEW_SHOT])
def test_every_learner_refuses_a_state_that_is_not_its_own_in_one_line(name, tmp_path):
    source = GLYPHS if name in FEW_SHOT else make_family("metarl/Navigation2D-v0")
    config = tiny(name, iterations=1, strategy="loop")
    run = begin(tmp_path / "run", name, config, source)
    train(run, source)
    iteration, state = run.restore()
    every = [place for place in places(state) if place]
    chosen = [*every[:3], *every[3 :: max(1, len(every) // 8)]]
    learner = registry.learner(name)
    for i, place in enumerate(chosen):
        changed = spoilt(state, place, SPOILT[i % len(SPOILT)])
        plant(run.folder, iteration, changed)
        for action in (
            lambda: learner.load(Run.open(run.folder, learner.Config), source),
            lambda: train(Run.resume(run.folder, learner=name, config=config, source=source, seed=1), source),
        ):
            assert "\n" not in refused(action), place


def refused(action):
    """The line of a UserError, if there is one."""
    try:
        action()
    except UserError as error:
        return str(error)
    return ""
