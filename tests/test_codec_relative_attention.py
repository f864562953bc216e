"""The attention kernel gives what scores laid out for all pairs give, at every row's own end."""

import pytest
import torch

from codec.nn import tiles
from codec.nn.native import library
from codec.nn.relative_attention import HEAD, relative_attention, takes

pytestmark = pytest.mark.skipif(library() is None, reason="no C++ compiler here")
HEADS, LEFT, RIGHT = 3, 20, 8


def example(length: int, batch: int = 2) -> tuple[torch.Tensor, ...]:
    """Queries, keys, values [B, F, heads x 64] and distances, such that some scores are far above others."""
    generator = torch.Generator().manual_seed(length)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    rows = (2 * draw(batch, length, HEADS * HEAD) for _ in range(3))
    return *rows, draw(LEFT + 1 + RIGHT, HEAD)


def all_pairs(query, key, value, distance, num_valid) -> torch.Tensor:
    query, key, value = (part.double().unflatten(2, (HEADS, HEAD)).transpose(1, 2) for part in (query, key, value))
    time = torch.arange(query.shape[2])
    apart = (time - time[:, None]).clamp(-LEFT, RIGHT) + LEFT
    scores = query @ key.transpose(2, 3) + torch.einsum("bhic,ijc->bhij", query, distance.double()[apart])
    hidden = time >= num_valid[:, None, None, None]
    weights = (scores / 8).masked_fill(hidden, float("-inf")).softmax(3)
    return (weights @ value).transpose(1, 2).flatten(2).float()


@pytest.mark.parametrize("length", (1, 2, 7, 23, 24, 25, 48, 49, 300))
def test_scores_in_cache_equal_scores_of_all_pairs(length):
    rows = example(length)
    with torch.inference_mode():
        assert takes(rows[0], HEADS)
        wanted = all_pairs(*rows, torch.tensor([length, length]))
        torch.testing.assert_close(relative_attention(*rows, RIGHT, None), wanted, atol=1e-5, rtol=1e-5)


def test_each_row_has_its_own_keys():
    rows, num_valid = example(150, batch=4), torch.tensor([150, 90, 13, 1])
    with torch.inference_mode():
        y = relative_attention(*rows, RIGHT, num_valid)
        torch.testing.assert_close(y, all_pairs(*rows, num_valid), atol=1e-5, rtol=1e-5)
        for row, count in enumerate(num_valid.tolist()):
            alone = relative_attention(*(part[row : row + 1, :count] for part in rows[:3]), rows[3], RIGHT, None)
            assert torch.equal(y[row : row + 1, :count], alone)


def test_the_result_does_not_depend_on_the_number_of_threads():
    rows = example(400)
    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            one = relative_attention(*rows, RIGHT, None)
            torch.set_num_threads(4)
            assert torch.equal(relative_attention(*rows, RIGHT, None), one)
    finally:
        torch.set_num_threads(before)


def test_scores_beyond_what_an_exponential_holds_are_told_apart():
    query, key, value, distance = (torch.zeros(1, 30, HEADS * HEAD) for _ in range(4))
    query[:], key[0, 17], value[0, 17] = 40, 40, 1
    with torch.inference_mode():
        y = relative_attention(query, key, value, distance[0, : LEFT + 1 + RIGHT, :HEAD], RIGHT, None)
    assert torch.equal(y, torch.ones_like(y))


def test_others_are_left_to_torch():
    rows = example(10)
    assert not takes(rows[0], HEADS), "something is learned"
    with torch.inference_mode():
        assert not takes(rows[0], HEADS + 1) and takes(rows[0].bfloat16(), HEADS) == tiles.ready()
