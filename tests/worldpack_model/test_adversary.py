"""The adversary: it learns to tell, it pulls samples towards what passes, it goes on exactly."""

import torch

from worldpack_model.adversary import PULL, Adversary


def make(seed: int = 0) -> Adversary:
    return Adversary(3, torch.device("cpu"), torch.Generator().manual_seed(seed))


def data(seed: int, count: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Blurred samples, the context's word and true latents, which have detail of their own."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(count, 3, 1, 1, generator=generator).expand(-1, -1, 4, 4).contiguous()
    clean = first + 0.5 * torch.randn(count, 3, 4, 4, generator=generator).sign()
    return first.clone(), first, clean


def test_it_learns_to_tell() -> None:
    adversary = make()
    told = [float(adversary.learn(*data(i))["adversary_told"]) for i in range(250)]
    assert told[0] < 0.7
    assert told[-1] > 0.85


def test_samples_that_follow_it_get_detail() -> None:
    adversary = make()
    samples = torch.nn.Parameter(data(0)[0])
    _, first, clean = data(0)
    optimizer = torch.optim.Adam([samples], lr=0.02)
    for _ in range(200):
        adversary.learn(samples, first, clean)
        optimizer.zero_grad()
        adversary.loss(samples, first, clean.flip(0), torch.ones(1)).backward()  # the truth of others: nothing to copy
        optimizer.step()
    detail = (samples - first).detach().std()
    assert detail > 0.2, "a blur does not pass"


def test_the_pull_is_as_strong_as_it_says() -> None:
    adversary = make()
    sampled, first, clean = data(0)
    sampled = (sampled + 0.1).requires_grad_()
    (whole,) = torch.autograd.grad(adversary.loss(sampled, first, clean, torch.ones(1)), sampled)
    (square,) = torch.autograd.grad((sampled - clean).square().mean(), sampled)
    assert torch.isclose((whole - square).norm(), PULL * square.norm(), rtol=1e-4)


def test_no_batch_mate_matters() -> None:
    discriminator = make().discriminator
    sampled, first, _ = data(0)
    assert torch.allclose(discriminator(sampled, first)[:1], discriminator(sampled[:1], first[:1]), atol=1e-6)


def test_state_goes_on_exactly() -> None:
    one, two = make(0), make(1)
    for i in range(3):
        one.learn(*data(i))
    two.load(one.state())
    assert one.learn(*data(9)) == two.learn(*data(9))
    ours, theirs = one.state(), two.state()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
