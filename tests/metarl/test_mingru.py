import pytest
import torch

from metarl.nets.mingru import MinGRU, Mixing
from metarl.seeding import Key


def some(*shape, seed=1):
    return torch.randn(*shape, generator=Key(seed).torch(), dtype=torch.float64)


def vivid(memory):
    return {n: v.double() + 0.3 * some(*v.shape, seed=3) for n, v in memory.init(Key(0).torch()).items()}


def test_by_hand():
    """A gate of 1/2 (its weights are 0) and candidates 4, 8: from 2 to 3 to 5.5; with a gate of 1/4 from 2 to 2.5."""
    memory = MinGRU(1, 1)
    params = {"0.weight": torch.tensor([[0.0], [1.0]]), "0.bias": torch.zeros(2)}
    out, state = memory.sequence(params, torch.tensor([[[4.0]], [[8.0]]]), torch.tensor([[2.0]]))
    assert out.flatten().tolist() == [3.0, 5.5]
    assert state.tolist() == [[5.5]]
    params["0.bias"][0] = -torch.tensor(3.0).log()
    assert memory.step(params, torch.tensor([[4.0]]), torch.tensor([[2.0]]))[0].item() == pytest.approx(2.5)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_sequence_is_a_plain_loop_over_the_equations(layers):
    memory = MinGRU(3, 4, layers)
    params, x, state = vivid(memory), some(6, 5, 3), some(5, 4 * layers, seed=2)
    out, after = memory.sequence(params, x, state)
    hidden, below = list(state.split(4, 1)), x
    for i in range(layers):
        above = []
        for moment in below:
            gate, candidate = (moment @ params[f"{i}.weight"].T + params[f"{i}.bias"]).split(4, 1)
            z = torch.sigmoid(gate)
            hidden[i] = (1 - z) * hidden[i] + z * candidate
            above.append(hidden[i])
        below = torch.stack(above)
    torch.testing.assert_close(out, below)
    torch.testing.assert_close(after, torch.cat(hidden, 1))


@pytest.mark.parametrize("length", [1, 4])
def test_the_gradient_of_the_recurrence_is_that_of_finite_differences(length):
    mixed, start = some(length, 3, 4).requires_grad_(), some(3, 2, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(Mixing.apply, (mixed, start))
    kept = mixed.detach().clone(), start.detach().clone()
    Mixing.apply(mixed, start).sum().backward()
    assert torch.equal(mixed, kept[0])
    assert torch.equal(start, kept[1])


def test_the_gradient_from_above_is_not_written_into():
    """That of a sum is a view that repeats one number."""
    mixed, start = some(5, 3, 4).requires_grad_(), some(3, 2, seed=2)
    Mixing.apply(mixed, start).sum().backward()
    loop, h, total = some(5, 3, 4).requires_grad_(), start, torch.zeros(())
    for moment in loop:
        z = torch.sigmoid(moment[:, :2])
        h = (1 - z) * h + z * moment[:, 2:]
        total = total + h.sum()
    total.backward()
    torch.testing.assert_close(mixed.grad, loop.grad)


def test_every_parameter_of_every_layer_gets_its_gradient():
    memory = MinGRU(2, 3, 2)
    params, x, state = vivid(memory), some(4, 2, 2), some(2, 6, seed=2)
    names = list(params)

    def outputs(*values):
        return memory.sequence(dict(zip(names, values, strict=True)), x, state)

    assert torch.autograd.gradcheck(outputs, [params[n].requires_grad_() for n in names])
    gradients = torch.autograd.grad(sum((out**2).sum() for out in outputs(*params.values())), list(params.values()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
