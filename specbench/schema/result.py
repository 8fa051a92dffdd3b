"""The result file: one place of truth for its columns, units and version.

One parquet file holds one job: a row per (arm, sample, repeat), with the verification rounds
as a nested column. Everything that explains the rows (configuration, provenance, digests)
stands in the file's own metadata, so that a file can be read without the repository.

Every published number is derived from these rows by one named function in `specbench.compare`
or `specbench.metrics`; no average is stored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from specbench.schema.asked import Asked
from specbench.schema.model import label_of
from specbench.secrets import scrub

SCHEMA_VERSION = 7
"""Integer version of the columns below. Every change adds an upgrade step."""

COUNTING_VERSION = 2
"""How proposed and accepted tokens are counted: since 2, nothing behind a drafted stop token is.
Files say it under `timing`; those that do not are of version 1."""

BASELINE = "baseline"
"""Name of the arm that plain decoding runs in."""

METHOD = "method"
"""Name of the arm that the measured method runs in."""

METADATA_KEY = b"specbench"
"""The key of the parquet file's metadata under which `FileMetadata` stands as JSON."""

_WORK_TYPE = pa.struct(
    [
        ("role", pa.string()),  # what the model is to the method, such as "judge"
        ("forwards", pa.int32()),
        ("tokens", pa.int32()),  # tokens fed
        ("ns", pa.int64()),  # nanoseconds in its forwards
    ]
)

ROUND_TYPE = pa.struct(
    [
        ("turn", pa.int32()),  # index of the conversation turn
        ("proposed", pa.int32()),  # draft tokens on the longest proposed path
        ("accepted", pa.int32()),  # draft tokens accepted by the verifier, none behind a stop
        ("emitted", pa.int32()),  # tokens kept after stop-token and length cuts, bonus included
        ("nodes", pa.int32()),  # draft tree nodes scored by the target
        ("target_forwards", pa.int32()),
        ("target_tokens", pa.int32()),  # tokens fed to the target
        ("draft_forwards", pa.int32()),
        ("draft_tokens", pa.int32()),  # tokens fed to the draft
        ("draft_ns", pa.int64()),  # nanoseconds in the drafter
        ("target_ns", pa.int64()),  # nanoseconds in the target's forward
        ("host_ns", pa.int64()),  # nanoseconds in everything else
        ("sampling_ns", pa.int64()),  # on a device, between the target and the round's end
        ("decided", pa.int32()),  # tokens fixed in the round; null where these are the emitted
        ("further", pa.list_(_WORK_TYPE)),  # models beside target and draft; null for none
    ]
)

RESULT_SCHEMA = pa.schema(
    [
        pa.field("arm", pa.string(), nullable=False),  # "baseline" or "method"
        pa.field("method", pa.string(), nullable=False),  # id of the method that ran in this arm
        pa.field("model", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("repeat", pa.int32(), nullable=False),
        pa.field("process", pa.int32(), nullable=False),  # index of the process that measured
        pa.field("position", pa.int32(), nullable=False),  # place in the interleaved schedule
        pa.field("started_unix", pa.float64(), nullable=False),  # seconds since 1970
        pa.field("error", pa.string()),  # null where the sample succeeded
        pa.field("stop_reason", pa.string()),  # stop_token | stop_string | length | context
        pa.field("prompt_digest", pa.string()),  # hash of the first turn's prompt, as token ids
        pa.field("prompt_tokens", pa.int32()),  # tokens of every turn's prompt, summed
        pa.field("new_tokens", pa.int32()),  # emitted ids, stop token included, summed over turns
        pa.field("output_ids", pa.list_(pa.list_(pa.int32()))),  # one list a turn
        pa.field("output_text", pa.list_(pa.string())),  # one string a turn
        pa.field("total_ns", pa.int64()),  # wall time of generate(), prefill included
        pa.field("ttft_ns", pa.int64()),  # wall time to the first token of the first turn
        pa.field("prefill_ns", pa.int64()),  # wall time to each turn's first token, summed
        pa.field("decode_ns", pa.int64()),  # total_ns - prefill_ns
        pa.field("device_ns", pa.int64()),  # CUDA events, first to last, idle time included
        pa.field("draft_ns", pa.int64()),  # sums over the rounds and the prefill
        pa.field("target_ns", pa.int64()),
        pa.field("host_ns", pa.int64()),
        pa.field("sampling_ns", pa.int64()),  # null where the host computes: part of host_ns
        pa.field("target_forwards", pa.int32()),  # prefills included
        pa.field("target_tokens", pa.int32()),
        pa.field("draft_forwards", pa.int32()),
        pa.field("draft_tokens", pa.int32()),
        pa.field("peak_device_bytes", pa.int64()),
        pa.field("peak_rss_bytes", pa.int64()),
        pa.field("score", pa.float64()),  # the task's scorer; null where it has none
        pa.field("score_name", pa.string()),
        pa.field("score_detail", pa.string()),
        pa.field("fidelity", pa.string()),  # identical | tie | diverged | wrong; null if undefined
        pa.field("first_divergence", pa.int32()),  # output position; null where identical
        pa.field("top2_gap", pa.float64()),  # how far the two tokens' logits lie apart there
        pa.field("offer_visits", pa.int64()),  # visited tree nodes that had children; see below
        pa.field("offer_accepted", pa.int64()),  # of these, how many had a child accepted
        pa.field("offer_optimal", pa.float64()),  # sum of the best possible acceptance there
        pa.field("picture", pa.string()),  # path of the PNG, relative to this file's folder
        pa.field("quality", pa.map_(pa.string(), pa.float64())),  # picture metrics by name
        pa.field("rounds", pa.list_(ROUND_TYPE)),
    ]
)
"""Columns of a result file; see the comments for units.

The `offer_` columns come from an untimed replay of methods that offer several children at a node
under a sampling law; they are null elsewhere and in all repeats but the first. So are `picture`
and `quality` in all repeats but the first: a picture is decoded and judged once.
"""


@dataclass(frozen=True)
class MethodInfo:
    """What a method's YAML says about itself.

    Attributes:
        name: The YAML's id.
        title: A short human name.
        exactness: "exact", "greedy" or "lossy".
        knob: The parameter that makes a lossy method lossy, else empty.
        paper: Title or reference of the authors' paper.
        modality: "text", "image" or "any".
    """

    name: str
    title: str = ""
    exactness: str = "exact"
    knob: str = ""
    paper: str = ""
    modality: str = "text"


@dataclass(frozen=True)
class FileMetadata:
    """Everything beside the rows that a result file says about its measurement.

    Attributes:
        schema_version: Version of the columns.
        job_id: Hex fingerprint of what was measured; equal for a resumed job.
        method: The method in the "method" arm.
        baseline: The method in the "baseline" arm, or None where no baseline ran.
        model: Model id.
        task: Task id.
        task_version: Version of the task's protocol.
        task_digest: SHA-256 of the samples and of the prompt protocol.
        law: Human-readable description of the target law.
        law_hash: Hash of the target law; a speedup across differing hashes is refused.
        scorer: Mapping of scorer name to its version.
        dtype: Compute dtype, such as "float32".
        device: Device name.
        engine: Which engine ran the target: "lean" (operation by operation), "lean graph",
            "lean kernels", "lean compile", "transformers" or "table".
        temperature: Temperature of the target law; None where it is not known (imports).
        timing: Repeats, warm-up and clock of the run.
        config: The resolved configuration, secrets removed.
        provenance: Versions, git revision, machine, digests and command line.
        noise: What the run knows of its own noise: `fidelity_version`, by which outputs that
            differ from plain decoding's were graded.
        metrics: What each metric of the pictures is, by name: title, unit, better, version,
            protocol, `average` ("categories" where the mean of the categories' means is the
            metric's number, else "pictures") and `kind` ("picture" or "corpus").
        corpus: Values of whole sets of pictures: arm -> metric -> value, n, floor, error,
            reference, protocol, version, detail.
        source: Where imported rows come from, empty for rows that specbench measured: `format`,
            `files` (name and SHA-256 of each), `unknown` (sentences on what the source does not
            record) and `odd` (sentences on what was read otherwise than it is written).
    """

    job_id: str
    method: MethodInfo
    baseline: MethodInfo | None
    model: str
    task: str
    task_version: int
    task_digest: str
    law: str
    law_hash: str
    scorer: Mapping[str, int]
    dtype: str
    device: str
    engine: str
    temperature: float | None
    timing: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    noise: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    corpus: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @cached_property
    def asked(self) -> Asked:
        """What the configuration says was asked of the run."""
        return Asked.of(self.config)

    def to_json(self) -> str:
        """Return the metadata as one line of JSON, its secrets hidden."""
        return json.dumps(scrub(asdict(self)), sort_keys=True)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FileMetadata:
        """Build metadata from decoded JSON of the current schema version.

        Raises:
            KeyError, TypeError: If a key is missing or of the wrong shape.
        """
        known = {item.name: item.type for item in fields(cls)}
        plain = {key: value for key, value in values.items() if key in known}
        plain["method"] = _method_info(plain["method"])
        plain["model"] = _model_label(plain["model"], plain.get("config"))
        if plain.get("baseline") is not None:
            plain["baseline"] = _method_info(plain["baseline"])
        for key, value in plain.items():
            _check_shape(key, value, str(known[key]))
        _check_deeper(plain)
        return cls(**plain)


def _model_label(name: Any, config: Any) -> Any:
    """Return what the model is called; earlier files name the entry that ran a checkpoint."""
    model = config.get("model") if isinstance(config, Mapping) else None
    target = model.get("target") if isinstance(model, Mapping) else None
    return label_of(name, target) if isinstance(name, str) and isinstance(target, str) else name


def _method_info(values: Any) -> MethodInfo:
    info = MethodInfo(**values)
    for key, value in asdict(info).items():
        _check_shape(f"method.{key}", value, "str")
    return info


_SHAPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "MethodInfo": (MethodInfo,),
    "MethodInfo | None": (MethodInfo, type(None)),
}


def _check_shape(key: str, value: Any, declared: str) -> None:
    """Raise TypeError unless a value has its field's outermost type and can be written as text."""
    allowed = _SHAPES.get(declared, (Mapping,))
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise TypeError(f"'{key}' is of the type {type(value).__name__}")
    if not isinstance(value, MethodInfo):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError) as error:
            raise TypeError(f"'{key}' holds what no text can: {error}") from error


def _check_deeper(plain: Mapping[str, Any]) -> None:
    """Raise TypeError where a nested value that comparisons calculate with is of another type."""
    if not all(type(version) is int for version in plain["scorer"].values()):
        raise TypeError("'scorer' holds what is no version")
    if not all(isinstance(about, Mapping) for about in plain.get("metrics", {}).values()):
        raise TypeError("'metrics' holds what is no mapping")
    for arm in plain.get("corpus", {}).values():
        for values in arm.values() if isinstance(arm, Mapping) else (None,):
            if not isinstance(values, Mapping):
                raise TypeError("'corpus' holds what is no mapping")
            for name in ("value", "n", "floor", "error"):
                if not _is_size(values.get(name, None), whole=name == "n"):
                    raise TypeError(f"'corpus' holds a {name} that is no number")
    for name in ("unknown", "odd", "files"):
        if not isinstance(plain.get("source", {}).get(name, ()), (list, tuple)):
            raise TypeError(f"'source.{name}' is no list")
    if not isinstance(plain.get("provenance", {}).get("processes") or (), (list, tuple)):
        raise TypeError("'provenance.processes' is no list")
    sampling = plain.get("config", {}).get("sampling")
    seed = sampling.get("seed") if isinstance(sampling, Mapping) else None
    if not isinstance(seed, (int, type(None))):
        raise TypeError("'config.sampling.seed' is no whole number")


def _is_size(value: Any, whole: bool) -> bool:
    """Return whether a value is None or a number that sums and squares of stay finite."""
    if value is None or (isinstance(value, float) and math.isnan(value) and not whole):
        return True
    return isinstance(value, (int, float)) and abs(value) < (2**63 if whole else 1e100)


Upgraded = tuple[pa.Table, dict[str, Any]]


def _with_unknown(table: pa.Table, *names: str) -> pa.Table:
    """Add columns of which nothing is known."""
    for name in names:
        if name not in table.column_names:
            field_ = RESULT_SCHEMA.field(name)
            table = table.append_column(field_, pa.nulls(len(table), field_.type))
    return table


def _with_offers(table: pa.Table, metadata: dict[str, Any]) -> Upgraded:
    return _with_unknown(table, "offer_visits", "offer_accepted", "offer_optimal"), metadata


def _with_pictures(table: pa.Table, metadata: dict[str, Any]) -> Upgraded:
    return _with_unknown(table, "picture", "quality"), metadata


def _with_source(table: pa.Table, metadata: dict[str, Any]) -> Upgraded:
    return table, {**metadata, "source": {}}


def _with_sampling_time(table: pa.Table, metadata: dict[str, Any]) -> Upgraded:
    """Add the time that nobody measured apart, for a measurement and for each of its rounds."""
    return _with_unknown(_with_unknown_fields(table, "sampling_ns"), "sampling_ns"), metadata


def _with_prompts(table: pa.Table, metadata: dict[str, Any]) -> Upgraded:
    return _with_unknown(table, "prompt_digest"), metadata


def _with_roles(table: pa.Table, metadata: dict[str, Any]) -> Upgraded:
    return _with_unknown_fields(table, "decided", "further"), metadata


def _with_unknown_fields(table: pa.Table, *names: str) -> pa.Table:
    """Add fields of which nothing is known to the rounds, where they are read."""
    if "rounds" not in table.column_names:
        return table
    place = table.column_names.index("rounds")
    rounds = table.column(place)
    for name in names:
        rounds = _with_unknown_field(rounds, ROUND_TYPE.field(name))
    return table.set_column(place, "rounds", rounds)


def _with_unknown_field(column: pa.ChunkedArray, field_: pa.Field) -> pa.ChunkedArray:
    """Add a field of which nothing is known to a column of lists of structs."""
    kind = column.type
    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return column  # no rounds: the reader says so
    if kind.value_type.get_field_index(field_.name) >= 0:
        return column
    lists = column.combine_chunks()
    flat = pc.list_flatten(lists)
    fields_ = [*kind.value_type, field_]
    parts = [flat.field(number) for number in range(flat.type.num_fields)]
    structs = pa.StructArray.from_arrays(
        [*parts, pa.nulls(len(flat), field_.type)], fields=fields_, mask=flat.is_null()
    )
    ends = pc.cumulative_sum(pc.fill_null(pc.list_value_length(lists), 0))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    return pa.chunked_array([pa.ListArray.from_arrays(offsets, structs, mask=lists.is_null())])


UPGRADES: dict[int, Callable[[pa.Table, dict[str, Any]], Upgraded]] = {
    1: _with_offers,
    2: _with_pictures,
    3: _with_source,
    4: _with_sampling_time,
    5: _with_prompts,
    6: _with_roles,
}
"""Step that turns a file of version `key` into version `key + 1`."""


def upgrade(table: pa.Table, metadata: dict[str, Any]) -> tuple[pa.Table, dict[str, Any]]:
    """Bring a table and its metadata from their version to `SCHEMA_VERSION`.

    Raises:
        KeyError: If a step is missing (the file is newer than this program, or too old).
    """
    version = int(metadata["schema_version"])
    while version != SCHEMA_VERSION:
        table, metadata = UPGRADES[version](table, metadata)
        version += 1
        metadata = {**metadata, "schema_version": version}
    return table, metadata
