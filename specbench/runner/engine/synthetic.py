"""Does speculation gain what its costs say? Drafts of a set acceptance, observed and predicted."""

from __future__ import annotations

from functools import partial

from specbench.decoding.ledger import Generation
from specbench.decoding.loops.autoregressive import Autoregressive
from specbench.decoding.loops.synthetic import SyntheticAcceptance
from specbench.models.pair import ModelPair
from specbench.predict import RoundSeconds, expected_tokens, synthetic_speedup
from specbench.runner.engine.contenders import Prompt, decode, decoded
from specbench.runner.engine.figures import Synthetic
from specbench.runner.engine.steps import Steps
from specbench.runner.engine.timing import in_turns, spread


def predicted_speedup(
    acceptance: float, draft_length: int, plain: float, draft: float, verify: float, one: float
) -> float:
    """Return the speedup that single costs predict, without a look at a speculative round.

    A round is expected to take, beside its forwards, what a plain step takes beside its own: the
    choice of a token, its transfer to the host, and the start of the next step.

    Args:
        acceptance: Chance that a draft token is accepted.
        draft_length: K.
        plain: Seconds of a plain step, end to end.
        draft: Seconds of a draft step.
        verify: Seconds of the target's forward over K + 1 tokens.
        one: Seconds of its forward over one.
    """
    one = min(one, plain)
    costs = RoundSeconds(draft, one, verify, host=plain - one, plain_host=plain - one)
    return synthetic_speedup(acceptance, draft_length, costs)


def measure_synthetic(
    engine: str,
    models: ModelPair,
    prompts: list[Prompt],
    tokens: int,
    acceptance: float,
    draft_length: int,
) -> Synthetic:
    """Race drafts of a set acceptance against plain decoding, prompt by prompt in turns.

    Args:
        engine: The engine's name.
        models: Target and draft in that engine.
        prompts: One for each round of the race; the first serves for warming up too.
        tokens: Tokens to emit for each.
        acceptance: Chance that a draft token is accepted.
        draft_length: Draft tokens of a round.
    """
    context = len(prompts[0])
    target = Steps(models, context, draft_length + 1)
    single = {
        "verify": target.seconds(target.verify(draft_length + 1)),
        "one": target.seconds(target.verify(1)),
    }
    own = Steps(models, context, 1, draft=True)
    single["draft"] = own.seconds(own.draft(), draft_length)
    costs = {name: spread(found).median for name, found in in_turns(single, len(prompts)).items()}

    decoder, plain = SyntheticAcceptance(acceptance, draft_length), Autoregressive()
    for _ in range(2):
        decode(plain, models, prompts[0], tokens)
        decode(decoder, models, prompts[0], tokens)
    decoder.reset()
    place = {"plain": 0, "synthetic": 0}
    runs: dict[str, list[Generation]] = {"plain": [], "synthetic": []}

    def run(name: str) -> float:
        method = plain if name == "plain" else decoder
        generation = decode(method, models, prompts[place[name]], tokens)
        place[name] += 1
        runs[name].append(generation)
        return decoded(generation).seconds

    seconds = in_turns({name: partial(run, name) for name in place}, len(prompts))
    ratios = [a / b for a, b in zip(seconds["plain"], seconds["synthetic"], strict=True)]
    rounds = [each for generation in runs["synthetic"] for each in generation.rounds[1:]]
    emitted = sum(each.count.emitted for each in rounds)
    spent = sum(each.total_ns - each.prefill_ns for each in runs["synthetic"])
    plain_seconds = spread(seconds["plain"]).median
    ties, looked_at = decoder.ties
    return Synthetic(
        engine=engine,
        acceptance=acceptance,
        draft_length=draft_length,
        expected_tokens=expected_tokens(acceptance, draft_length),
        tokens_per_round=emitted / len(rounds),
        rounds=len(rounds),
        observed=spread(ratios),
        predicted=predicted_speedup(
            acceptance, draft_length, plain_seconds, costs["draft"], costs["verify"], costs["one"]
        ),
        draft_seconds=costs["draft"],
        verify_seconds=costs["verify"],
        plain_seconds=plain_seconds,
        host_share=sum(each.host_ns for each in rounds) / spent,
        ties=ties / looked_at,
    )
