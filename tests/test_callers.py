"""Several Python threads that compute at once get the bits that each of them gets alone."""

import threading

import pytest

import dualgrad as dg
from dualgrad import functional, nn


@pytest.fixture(autouse=True)
def three_threads():
    before = dg.get_num_threads()
    dg.set_num_threads(3)
    yield
    dg.set_num_threads(before)


def gradient(model, x):
    w = model.weight.detach().requires_grad_()
    ((x @ w.T).tanh() ** 2).mean().backward()
    return w.grad


MODEL = nn.Linear(256, 64)
EAGER = {
    "exp": lambda x: dg.exp(x),
    "chain": lambda x: (x * 2.0 + 1.0).tanh() / (x * x + 1.0),
    "softmax": lambda x: functional.softmax(x, -1),
    "sum": lambda x: x.sum(0) + x.sum(),
    "matmul": lambda x: x.T @ x,
    "gradient": lambda x: gradient(MODEL, x),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_callers_in_several_threads(compiled):
    work = {name: dg.function(f) if compiled else f for name, f in EAGER.items()}
    inputs = [dg.randn(400, 256, generator=dg.Generator(k)) for k in range(4)]
    alone = [{name: f(x).numpy().tobytes() for name, f in work.items()} for x in inputs]
    wrong, start = [], threading.Barrier(len(inputs))

    def caller(k):
        start.wait()
        names = list(work)
        for turn in range(12):
            name = names[(turn + k) % len(names)]
            try:
                if work[name](inputs[k]).numpy().tobytes() != alone[k][name]:
                    wrong.append((k, name))
            except Exception as error:
                wrong.append((k, name, error))

    callers = [threading.Thread(target=caller, args=(k,)) for k in range(len(inputs))]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not wrong


def test_first_calls_in_several_threads():
    """Each thread compiles, or finds what another has compiled meanwhile."""
    start, got = threading.Barrier(4), {}

    def caller(k):
        start.wait()
        x = dg.arange(1000, dtype=dg.float64)
        got[k] = (dg.erf(x * 0.001) + dg.atanh(x * 0.0001)).sum().item()

    callers = [threading.Thread(target=caller, args=(k,)) for k in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert len(got) == 4
    assert len(set(got.values())) == 1
