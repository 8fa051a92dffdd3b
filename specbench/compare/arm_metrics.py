"""The metrics of one arm, in the order of JSON and CSV; see `specbench.compare.registry`.

Terms. A turn's first round is its prefill: the target's forward over the prompt, which yields
the turn's first token and proposes nothing. All later rounds are verification rounds; for plain
decoding each of them proposes nothing and emits one token. "Pooled" means a ratio of totals.
`emitted` counts the tokens that were kept after stop-token and length cuts, the bonus or
corrected token included; `accepted` counts draft tokens only.
"""

from __future__ import annotations

from specbench.compare import cells, derive
from specbench.compare.metric import (
    COUNT,
    Explained,
    Metric,
    Total,
    quotient,
    settles_early,
    verifies,
)

_ROUND_TIME = (
    "verification_draft_ns",
    "verification_target_ns",
    "verification_sampling_ns",
    "verification_host_ns",
)

ARM_METRICS = (
    Metric(
        id="mal",
        title="Mean acceptance length",
        words="Tokens per verification round, bonus included. Emitted tokens are pooled over "
        "rounds; the prefill of a turn is no round. Left out where nothing is drafted and a round "
        "is many forwards, as in beam search, and where tokens are settled only at the end.",
        unit="tokens per round",
        better="higher",
        totals=quotient("verification_emitted", "verification_rounds"),
        defined=verifies,
        charted=True,
        column="MAL",
        rank=2,
        explained=Explained(
            "mal",
            1,
            "pooled over rounds",
            "tokens kept over verification rounds, bonus included, all requests together",
            "specbench's MAL; Spec-Bench's mean accepted tokens, REST's and SWIFT's, the mean of "
            "all entries of accept_lengths.",
        ),
    ),
    Metric(
        id="mal_request",
        title="Mean acceptance length by request",
        words="Mean over measurements of each one's own mean acceptance length.",
        unit="tokens per round",
        better="higher",
        of_arm=derive.mal_request,
        moves=cells.mal_request,
        defined=verifies,
        column="MAL by request",
        explained=Explained(
            "mal",
            2,
            "mean over requests",
            "the same for each request, then the mean: a short answer counts as much as a long one",
            "Clients that average what a server reports for each response, such as AIPerf's "
            "per-request acceptance; specdec_bench, with which SPEED-Bench is run, averages over "
            "turns.",
        ),
    ),
    Metric(
        id="accepted_per_round",
        title="Accepted per round",
        words="Accepted draft tokens per verification round, bonus token excluded, pooled over "
        "rounds.",
        unit="tokens per round",
        better="higher",
        totals=quotient("verification_accepted", "verification_rounds"),
        column="accepted a round",
        explained=Explained(
            "mal",
            10,
            "without the bonus",
            "accepted draft tokens over verification rounds, no bonus or corrected token",
            "specbench's accepted_per_round; papers that count draft tokens only: one less than "
            "their neighbours.",
        ),
    ),
    Metric(
        id="acceptance_rate",
        title="Acceptance rate",
        words="Accepted over tested draft tokens. A position of the longest proposed path is "
        "tested if all earlier ones were accepted: a round tests its accepted tokens and, unless "
        "it accepted the whole path, one more. All positions are pooled.",
        unit="share",
        better="higher",
        totals=quotient("verification_accepted", "verification_tested"),
        charted=True,
        column="accept",
        rank=8,
        form="{:.0%}",
    ),
    Metric(
        id="acceptance_by_position",
        title="Acceptance by position",
        words="Chance that position i is accepted, given that it was proposed and all earlier ones "
        "were accepted.",
        unit="share",
        better="higher",
        of_arm=derive.acceptance_by_position,
        gate_on="acceptance_rate",
    ),
    Metric(
        id="acceptance_histogram",
        title="Acceptance histogram",
        words="Number of verification rounds that accepted 0, 1, 2, ... draft tokens.",
        unit="rounds",
        of_arm=derive.acceptance_histogram,
        gate_on="mal",
    ),
    Metric(
        id="draft_efficiency",
        title="Draft-token efficiency",
        words="Accepted over drafted tokens; every node of a draft tree was drafted.",
        unit="share",
        better="higher",
        totals=quotient("verification_accepted", "verification_nodes"),
        column="draft efficiency",
        form="{:.0%}",
    ),
    Metric(
        id="node_acceptance",
        title="Acceptance at a tree node",
        words="Visited nodes of the draft tree at which a child was accepted, over visited nodes "
        "that have children. Measured for methods with several drafts, in an untimed replay under "
        "a sampling law.",
        unit="share",
        better="higher",
        totals=quotient("offer_accepted", "offer_visits"),
    ),
    Metric(
        id="node_acceptance_ceiling",
        title="Ceiling of the acceptance at a tree node",
        words="The same share under the best verifier that there can be for the same offers: the "
        "optimal transport value between the law of the target and that of the offered children, "
        "averaged over the visited nodes (Sun et al., SpecTr, 2023; Khisti et al. and Hu et al., "
        "2024, 2025).",
        unit="share",
        better="higher",
        totals=quotient("offer_optimal", "offer_visits"),
    ),
    Metric(
        id="nfe",
        title="Target forwards",
        words="Target forwards of one measurement, prefills included.",
        unit="forwards per sample",
        better="lower",
        totals=quotient("target_forwards", COUNT),
        charted=True,
        column="NFE",
        rank=2,
        form="{:.1f}",
        legend="target forwards of one picture",
    ),
    Metric(
        id="step_compression",
        title="Step compression",
        words="Tokens per target forward, the step compression. New tokens are pooled over "
        "forwards, prefills included; plain decoding has 1.",
        unit="tokens per forward",
        better="higher",
        totals=quotient("new_tokens", "target_forwards"),
        charted=True,
        column="tok/NFE",
        rank=2,
        explained=Explained(
            "mal",
            5,
            "tokens / forwards",
            "all new tokens over target forwards, prefills and every extra forward included",
            "specbench's step compression; the speculative Jacobi papers on pictures.",
        ),
    ),
    Metric(
        id="tokens_per_second",
        title="Tokens per second, end to end",
        words="New tokens per second of the whole generation, prefill included, pooled.",
        unit="tokens/s",
        better="higher",
        totals=quotient("new_tokens", "total_ns"),
        scale=1e9,
        timing=True,
        raw=True,
        charted=True,
        column="tok/s end to end",
    ),
    Metric(
        id="tokens_per_second_decode",
        title="Tokens per second, decode only",
        words="Decode only. Tokens of the verification rounds per second after each turn's first "
        "token, pooled.",
        unit="tokens/s",
        better="higher",
        totals=quotient("verification_emitted", "decode_ns"),
        scale=1e9,
        defined=settles_early,
        timing=True,
        raw=True,
        column="tok/s",
        rank=3,
    ),
    Metric(
        id="ttft_ms",
        title="Time to first token",
        words="Median time to first token. It is that of the first turn.",
        unit="ms",
        better="lower",
        of_arm=derive.ttft_ms,
        moves=cells.time_to_first_token,
        timing=True,
        raw=True,
        charted=True,
        column="TTFT",
        rank=7,
    ),
    Metric(
        id="host_share",
        title="Host share",
        words="Share of the time outside of both models; of a GPU, that in which it had no work. "
        "The rest are the target's and the draft's forwards and, where a device is timed, its "
        "sampling.",
        unit="share",
        better="lower",
        totals=quotient("host_ns", "total_ns"),
        timing=True,
        raw=True,
        column="host",
        rank=11,
        form="{:.0%}",
    ),
    Metric(
        id="round_time",
        title="Time of a round",
        words="Mean time of a verification round, split into draft, target and host, and on a "
        "device sampling.",
        unit="ms",
        better="lower",
        totals=(
            Total(_ROUND_TIME, 1),
            Total(("verification_rounds",), -1),
        ),
        scale=1e-6,
        of_arm=derive.round_time,
        timing=True,
        raw=True,
    ),
    Metric(
        id="peak_memory_bytes",
        title="Peak memory",
        words="Greatest device memory; the process's resident memory where no device reports it.",
        unit="bytes",
        better="lower",
        of_arm=derive.peak_memory_bytes,
        moves=cells.peak_memory,
        raw=True,
        charted=True,
        column="peak memory",
    ),
    Metric(
        id="mean_new_tokens",
        title="New tokens",
        words="New tokens of one measurement, stop tokens included.",
        unit="tokens per sample",
        totals=quotient("new_tokens", COUNT),
    ),
    Metric(
        id="fidelity",
        title="Fidelity",
        words="Samples by how their tokens compare with the baseline's at temperature 0: "
        "identical, tie (the logits of the two tokens lie no further apart, where the outputs "
        "part, than twice what the shape of a forward moves their difference there), diverged or "
        "wrong. Version 2 of the grades.",
        unit="samples",
        of_arm=derive.fidelity_counts,
        moves=cells.fidelity,
        absolute=True,
        gate_title="Faithful outputs",
    ),
)
