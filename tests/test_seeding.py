import torch

from ncflow.seeding import derive_seed, epoch_order


def test_purposes_and_indices_give_different_seeds():
    seeds = {derive_seed(s, p, e) for s in range(5) for p in ("data", "labels", "init", "order") for e in range(50)}
    assert len(seeds) == 5 * 4 * 50


def test_seed_zero_is_a_seed_like_any_other():
    assert derive_seed(0, "data") == derive_seed(0, "data") != derive_seed(1, "data")


def test_order_is_a_permutation_that_changes_with_the_epoch():
    first, second = epoch_order(3, 0, 100), epoch_order(3, 1, 100)
    assert sorted(first.tolist()) == list(range(100))
    assert not torch.equal(first, second)
    assert torch.equal(first, epoch_order(3, 0, 100))
