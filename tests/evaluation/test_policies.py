"""Policies of this machine as generators: seeds decide, batches do not; what ends a completion; choices compared."""

import dataclasses
import math

import pytest
import torch

from evaluation.generation import Request
from evaluation.policies import PolicyGenerator, policy_fingerprint
from lco.config import OptimalPolicySource, StageConfig

CONFIG = StageConfig(device="cpu")


def request(prompt="1+2=", seed=1, **changes):
    values = {"example_id": "e", "sample_index": 0, "prompt": prompt, "is_raw": False, "seed": seed}
    sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 12}
    return Request(**{**values, **sampling, **changes})


@pytest.fixture
def generator_of(tiny_policy):
    def make(batch_size=4):
        return PolicyGenerator(lambda: tiny_policy, "fingerprint", batch_size)

    return make


def completed(generator, requests):
    """Generations in the order of their requests, each asked for once."""
    found = dict(pair for batch in generator.complete(requests) for pair in batch)
    assert sorted(found) == list(range(len(requests)))
    return [found[place] for place in range(len(requests))]


def compared(generator, requests):
    found = dict(pair for batch in generator.choice_logprobs(requests) for pair in batch)
    assert sorted(found) == list(range(len(requests)))
    return [found[place] for place in range(len(requests))]


def test_a_completion_depends_on_its_request_alone(generator_of):
    requests = [request("1+" * n + "2=", seed=n) for n in range(9)]
    requests += [request("7+7=", temperature=0.0), request("7+7=", top_p=0.5, max_tokens=3)]
    together = completed(generator_of(4), requests)
    assert [completed(generator_of(1), [one])[0] for one in requests] == together
    assert completed(generator_of(3), requests[::-1])[::-1] == together
    assert len({generation.text for generation in together}) > 5


def test_a_completion_ends_before_the_first_stop_string_and_is_then_not_truncated(generator_of):
    requests = [request(seed=seed) for seed in range(20)]
    free = completed(generator_of(), requests)
    stopped = completed(generator_of(), [dataclasses.replace(one, stop=("12", "=")) for one in requests])
    assert any(one.text != other.text for one, other in zip(free, stopped, strict=True))
    for one, other in zip(free, stopped, strict=True):
        ends = [place for string in ("12", "=") if (place := one.text.find(string)) >= 0]
        assert other.text == (one.text[: min(ends)] if ends else one.text)
        assert other.is_truncated == (one.is_truncated and not ends)
        assert other.num_tokens <= one.num_tokens


def test_what_cannot_be_asked_is_an_error_of_that_request_alone(generator_of):
    requests = [request("1+" * 40), request(), request(""), request("", is_raw=True), request("1\ud800")]
    long, fine, empty, raw, torn = completed(generator_of(), requests)
    assert long.error == "a prompt of 80 tokens and 12 more exceed the model's 64 positions"
    assert fine.error is None and fine.num_tokens > 0
    assert "has no tokens" in empty.error and "has no tokens" in raw.error
    assert torn.error is None or not torn.is_transient
    assert not any(one.is_transient for one in (long, empty, raw))


def test_the_model_is_loaded_when_it_is_first_used_and_freed_when_closed(tiny_policy):
    loaded = []
    generator = PolicyGenerator(lambda: loaded.append(1) or tiny_policy, "fingerprint", 4)
    assert loaded == []
    completed(generator, [request()])
    generator.close()
    assert loaded == [1] and generator._policy is None


def test_choices_are_compared_by_their_log_probability_after_the_prompt(generator_of, tiny_policy):
    prompts = ["1+2=", "9+9+9=", "5="]
    single, several = ("3", "7", "+"), ("12", "7", "345")
    requests = [request(prompt, is_raw=True, choices=some) for prompt in prompts for some in (single, several)]
    for one, found in zip(requests, compared(generator_of(), requests), strict=True):
        expected = [direct_logprob(tiny_policy, one.prompt, choice) for choice in one.choices]
        assert found.choice_logprobs == pytest.approx(expected, abs=1e-4)
        assert found.text == one.choices[expected.index(max(expected))]
    alone = [compared(generator_of(1), [one])[0].text for one in requests]
    assert alone == [found.text for found in compared(generator_of(64), requests)]


def direct_logprob(policy, prompt, choice):
    """The sum over the choice's tokens, one forward pass a token."""
    encode = policy.tokenizer.encode
    ids, total = encode(prompt, add_special_tokens=False), 0.0
    for token in encode(choice, add_special_tokens=False):
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([ids])).logits[0, -1, : policy.vocab_size]
        total += float(logits.double().log_softmax(-1)[token])
        ids = [*ids, token]
    return total


def test_choices_that_do_not_fit_or_are_empty_are_errors_of_their_own(generator_of):
    long, empty, fine = compared(
        generator_of(),
        [request("1+" * 32, choices=("1", "2")), request(choices=("1", "")), request(choices=("1", "2"))],
    )
    assert "exceed the model's 64 positions" in long.error and "has no tokens" in empty.error
    assert fine.error is None and all(math.isfinite(value) for value in fine.choice_logprobs)


def test_the_fingerprint_names_the_files_their_combination_and_the_precision(tiny_policy, tiny_model, tmp_path):
    tiny_policy.save(tmp_path / "copy")
    own = policy_fingerprint(str(tiny_model), CONFIG)
    assert policy_fingerprint(str(tmp_path / "copy"), CONFIG) == own
    assert policy_fingerprint(str(tiny_model), StageConfig(device="cpu", precision="bfloat16")) != own
    combined = {"policy": str(tiny_model), "reward_model": str(tiny_model)}
    pulls = [
        policy_fingerprint(OptimalPolicySource(**combined, reference_kl=strength), CONFIG) for strength in (0.0, 0.5)
    ]
    assert len({own, *pulls}) == 3
    weights = tmp_path / "copy" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert policy_fingerprint(str(tmp_path / "copy"), CONFIG) != own
    with pytest.raises(ValueError, match="holds no model"):
        policy_fingerprint(str(tmp_path / "nothing"), CONFIG)


def test_the_key_of_a_request_has_everything_that_decides_its_completion():
    changes = {
        "example_id": "f", "sample_index": 1, "prompt": "2+1=", "is_raw": True, "seed": 2, "temperature": 0.5,
        "top_p": 0.9, "max_tokens": 13, "stop": ("x",), "choices": ("1", "2"), "system_prompt": "s",
    }  # fmt: skip
    assert changes.keys() == {field.name for field in dataclasses.fields(Request)}
    keys = {request(**{name: value}).key("fingerprint") for name, value in changes.items()}
    assert len(keys | {request().key("fingerprint"), request().key("other")}) == len(changes) + 2
