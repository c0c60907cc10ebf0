import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.profiler import ProfilerActivity, profile

from metarl.errors import UserError
from metarl.nets.transformer import Transformer
from metarl.seeding import Key


def vivid(memory, dtype=torch.float64):
    """Parameters none of which is zero or one by construction, so that every one of them matters."""
    params, generator = memory.init(Key(0).torch()), Key(0)("noise").torch()
    return {n: v.to(dtype) + 0.3 * torch.randn(v.shape, generator=generator, dtype=dtype) for n, v in params.items()}


def moments(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=Key(1).torch(), dtype=dtype)


def stepped(memory, params, x, state):
    """Features and state of a sequence, moment by moment."""
    out = []
    for moment in x:
        features, state = memory.step(params, moment, state)
        out.append(features)
    return torch.stack(out), state


sizes = st.fixed_dictionaries(
    {"inputs": st.integers(1, 4), "length": st.integers(1, 9), "layers": st.integers(1, 3), "heads": st.integers(1, 3)}
)


@given(sizes=sizes, rows=st.integers(1, 4), data=st.data())
@settings(max_examples=30)
def test_steps_with_the_cache_are_the_sequence_in_any_parts(sizes, rows, data):
    memory = Transformer(**sizes, width=6 * sizes["heads"])
    params = {n: v.float() for n, v in vivid(memory).items()}
    x = moments(data.draw(st.integers(1, sizes["length"])), rows, sizes["inputs"], dtype=torch.float32)
    whole, after = memory.sequence(params, x, memory.start(rows))
    cut = data.draw(st.integers(0, len(x)))
    first, between = memory.sequence(params, x[:cut], memory.start(rows))
    second, end = memory.sequence(params, x[cut:], between)
    for out, state in (stepped(memory, params, x, memory.start(rows)), (torch.cat([first, second]), end)):
        torch.testing.assert_close(out, whole, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(state, after, atol=1e-5, rtol=1e-5)


@given(sizes=sizes, rows=st.integers(1, 4), late=st.integers(0, 3))
@settings(max_examples=30)
def test_acting_in_place_is_the_sequence_also_of_rows_at_different_moments(sizes, rows, late):
    """The first row begins anew after some moments."""
    memory = Transformer(**sizes, width=6 * sizes["heads"])
    params, x = vivid(memory), moments(sizes["length"], rows, sizes["inputs"])
    late = min(late, len(x) - 1)
    owned, out = memory.start(rows).double(), []
    with torch.no_grad():
        for t, moment in enumerate(x):
            if t == late:
                owned[0] = 0.0
            features, after = memory.act(params, moment, owned)
            assert after.data_ptr() == owned.data_ptr()
            out.append(features)
    whole, state = memory.sequence(params, x, memory.start(rows).double())
    anew, first = memory.sequence(params, x[late:, :1], memory.start(1).double())
    acted, others = torch.stack(out), slice(1, None)
    torch.testing.assert_close(acted[:, others], whole[:, others])
    torch.testing.assert_close(acted[late:, :1], anew)
    torch.testing.assert_close(owned[others], state[others])
    n = 1 + sizes["inputs"]
    torch.testing.assert_close(owned[:1, :n], first[:, :n])  # behind them stands what is attended to no more


def test_a_trial_of_a_thousand_steps_is_acted_in_the_room_of_its_keys_and_values():
    """What torch allocates in a step is a small part of the state, which a copy would be all of."""
    memory = Transformer(4, length=1000, width=64)
    params, x = memory.init(Key(0).torch()), torch.zeros(8, 4)
    with torch.no_grad():
        state = memory.start(8)
        state[:, 0] = 900  # in the middle of trials
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            memory.act(params, x, state)
    allocated = sum(max(0, event.self_cpu_memory_usage) for event in seen.events())
    assert 0 < allocated < state.nbytes / 20


def test_trials_of_a_batch_may_be_at_different_moments():
    memory = Transformer(2, length=6, width=8, layers=2)
    params, x = vivid(memory), moments(6, 3, 2)
    start = memory.start(3).double()
    _, late = memory.sequence(params, x[:4], start)
    state = torch.where(torch.tensor([True, False, True])[:, None], late, start)  # the second begins anew
    out, _ = memory.sequence(params, x[4:], state)
    torch.testing.assert_close(out[:, [0, 2]], memory.sequence(params, x, start)[0][4:, [0, 2]])
    torch.testing.assert_close(out[:, 1:2], memory.sequence(params, x[4:, 1:2], start[1:2])[0])


def test_nothing_is_known_of_later_moments_and_of_other_rows():
    memory = Transformer(2, length=7, width=8, layers=2)
    params, x = vivid(memory), moments(7, 3, 2)
    whole, _ = memory.sequence(params, x, memory.start(3).double())
    other = x.clone()
    other[4, 1] += 1.0
    changed, _ = memory.sequence(params, other, memory.start(3).double())
    differs = (changed != whole).any(-1)
    assert differs[:, 1].tolist() == [False] * 4 + [True] * 3
    assert not differs[:, [0, 2]].any()


def test_a_token_is_a_whole_transition():
    """The first moment stands beside zeros; what attention adds is cut off, so that a token is all that is seen."""
    memory = Transformer(2, length=3, width=4)
    params, x = vivid(memory), moments(3, 1, 2)
    params |= {n: torch.zeros_like(v) for n, v in params.items() if "join" in n or "feedforward.1" in n}
    out, _ = memory.sequence(params, x, memory.start(1).double())
    for t in range(3):
        pair = torch.cat([x[t, 0], x[t - 1, 0] if t else torch.zeros(2, dtype=torch.float64)])
        token = pair @ params["token.weight"] + params["token.bias"] + params["position"][t]
        expected = nn.functional.layer_norm(token, (4,), params["leave.weight"], params["leave.bias"])
        torch.testing.assert_close(out[t, 0], expected)


def test_a_token_of_a_moment_knows_nothing_of_the_moment_before():
    memory = Transformer(2, length=3, width=4, token="moment")
    params, x = vivid(memory), moments(3, 1, 2)
    params |= {n: torch.zeros_like(v) for n, v in params.items() if "join" in n or "feedforward.1" in n}
    out, _ = memory.sequence(params, x, memory.start(1).double())
    token = x[:, 0] @ params["token.weight"] + params["token.bias"] + params["position"]
    expected = nn.functional.layer_norm(token, (4,), params["leave.weight"], params["leave.bias"])
    torch.testing.assert_close(out[:, 0], expected)


def test_a_layer_is_torchs():
    """Against `nn.TransformerEncoderLayer`, pre-norm and causal."""
    memory = Transformer(3, length=5, width=8, heads=2, feedforward=12)
    params, x = vivid(memory), moments(5, 4, 3)
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, "gelu", norm_first=True, dtype=torch.float64)
    mine = {n.removeprefix("0."): v for n, v in params.items() if n.startswith("0.")}
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": mine["attention.weight"].T,
            "self_attn.in_proj_bias": mine["attention.bias"],
            "self_attn.out_proj.weight": mine["join.weight"].T,
            "self_attn.out_proj.bias": mine["join.bias"],
            **{f"linear{i + 1}.weight": mine[f"feedforward.{i}.weight"].T for i in range(2)},
            **{f"linear{i + 1}.bias": mine[f"feedforward.{i}.bias"] for i in range(2)},
            **{f"norm1.{part}": mine[f"before_attention.{part}"] for part in ("weight", "bias")},
            **{f"norm2.{part}": mine[f"before_feedforward.{part}"] for part in ("weight", "bias")},
        }
    )
    pairs = torch.cat([x, torch.cat([torch.zeros_like(x[:1]), x[:-1]])], -1)
    tokens = pairs @ params["token.weight"] + params["token.bias"] + params["position"][:, None]
    expected = layer(tokens, src_mask=nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64))
    expected = nn.functional.layer_norm(expected, (8,), params["leave.weight"], params["leave.bias"])
    torch.testing.assert_close(memory.sequence(params, x, memory.start(4).double())[0], expected)


def test_every_parameter_gets_its_gradient_also_from_the_middle_of_a_trial():
    memory = Transformer(2, length=4, width=4, layers=2, heads=2)
    params, x = vivid(memory), moments(4, 2, 2)
    _, state = memory.sequence(params, x[:2], memory.start(2).double())
    names = list(params)

    def out(*values):
        return memory.sequence(dict(zip(names, values, strict=True)), x[2:], state)[0]

    assert torch.autograd.gradcheck(out, [params[n].requires_grad_() for n in names])
    gradients = torch.autograd.grad((out(*params.values()) ** 3).sum(), list(params.values()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_what_is_given_stays_as_it_is():
    memory = Transformer(2, length=4, width=4)
    params, x, state = vivid(memory), moments(2, 3, 2), memory.start(3).double()
    _, after = memory.sequence(params, x, state)
    assert not state.any()
    kept = after.clone()
    memory.step(params, x[0], after)
    assert torch.equal(after, kept)


def test_a_longer_trial_than_there_are_positions_is_refused():
    memory = Transformer(2, length=3, width=4)
    params, x = vivid(memory), moments(4, 1, 2)
    with pytest.raises(
        UserError, match="step 4 of a trial is beyond the 3 positions of this transformer: begin a new trial, or train"
    ):
        memory.sequence(params, x, memory.start(1).double())
    _, state = memory.sequence(params, x[:3], memory.start(1).double())
    for move in (memory.step, memory.act):
        with pytest.raises(UserError, match="step 4 of a trial is beyond the 3 positions"):
            move(params, x[3], state)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="4 heads share its width evenly, and 6 is no multiple"):
        Transformer(2, length=3, width=6)
    with pytest.raises(ValueError, match="at least 1"):
        Transformer(2, length=0)


def test_branches_start_smaller_the_more_layers_there_are():
    one, four = (Transformer(8, length=3, layers=n).init(Key(0).torch()) for n in (1, 4))
    for name in ("0.join.weight", "0.feedforward.1.weight"):
        assert float(one[name].std() / four[name].std()) == pytest.approx(2, rel=0.05)
    assert float(one["0.attention.weight"].std()) == pytest.approx(math.sqrt(2 / 128), rel=0.05)
    assert float(one["position"].std()) == pytest.approx(0.02, rel=0.2)
