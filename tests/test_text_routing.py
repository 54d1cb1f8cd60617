"""The routings of a real text: what is kept is what the recipe makes, and workloads are made of it."""

import numpy as np
import pytest

from gemm_lessons.moe import text_routing
from gemm_lessons.moe.text_routing import BATCH, BATCHES, SHAPES
from gemm_lessons.workloads import WORKLOADS, text_counts


@pytest.fixture(scope="module")
def recorded():
    return text_routing.recorded()


@pytest.mark.parametrize("name", SHAPES)
def test_a_token_goes_to_different_experts(recorded, name):
    num_experts, k = SHAPES[name]
    experts = recorded[0][name]
    assert experts.shape == (BATCHES, BATCH, k)
    assert experts.max() == num_experts - 1
    ordered = np.sort(experts, axis=2)
    assert (ordered[:, :, 1:] != ordered[:, :, :-1]).all()


def test_the_recipe_makes_what_is_kept(recorded):
    routings, source = recorded
    if source["sha256"] != text_routing.about()["sha256"]:
        pytest.skip(f"NOT RUN: the text is that of Python {source['python']}, and this is another")
    made = text_routing.make()
    for name in SHAPES:
        # why not all: another library may round a sum the other way, and two logits may be that close
        assert (made[name] == routings[name]).mean() > 0.999


def test_the_same_words_go_the_same_way():
    x = text_routing.embed(text_routing.tokens_of("the loop, the loop and the Loops"))
    assert text_routing.tokens_of("A 1st b+=c") == ["a", "1", "st", "b", "+", "=", "c"]
    assert np.array_equal(x[1], x[4])
    assert x[1] @ x[7] > x[1] @ x[5] + 0.1, "loop is nearer to loops than to and"
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-6)


def test_workloads_have_the_counts_of_the_text(recorded):
    for name, num_experts in (("text", 8), ("text-64", 64)):
        problem, experts = WORKLOADS[name].problem, recorded[0][str(num_experts)][0]
        assert problem.counts == tuple(int((experts == e).sum()) for e in range(num_experts))
        assert problem.total_tokens == experts.size
        assert problem.max_tokens > 1.5 * problem.total_tokens / num_experts, "a real text is uneven"
    assert sum(text_counts(8, 10)) == 20
