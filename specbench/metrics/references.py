"""Real pictures: what generated ones are compared with, and what real ones themselves score.

A Frechet distance falls as the number of pictures rises, also between two sets of real ones, so
no value means anything without the value that real pictures reach at the same number. Every
reference can therefore draw *trials*: n real pictures against a reference that lacks them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from specbench.bounded import check_regular
from specbench.errors import ConfigError, ModelError
from specbench.metrics.base import Picture
from specbench.metrics.cached import cached, key_of
from specbench.metrics.features import Features
from specbench.metrics.frechet import Floats, Gaussian, fit, root
from specbench.metrics.weights import first_line, option
from specbench.zoo.pictures.rows import Renders

WORLD = "world"
TRIALS = 8
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))

_GALLERY = 512
_WORLD_SEED = 1


class Trial(NamedTuple):
    """n real pictures and what they are compared with.

    Attributes:
        real: Their features [n, D].
        statistics: Statistics of the reference without them.
        features: Features of the reference without them, where they are known.
    """

    real: Floats
    statistics: Gaussian
    features: Floats | None


class Pool(NamedTuple):
    """A reference as one feature extractor sees it.

    Attributes:
        statistics: Its mean and covariance.
        features: Its features [m, D]; None where only the statistics are known.
        words: What it is, for people.
        digest: Names it, for the cache.
        trials: Draws the real-against-real trials with so many pictures each.
        floor: How the trials are drawn, for people.
        most: The most pictures that a trial can have; None where any number can be drawn.
    """

    statistics: Gaussian
    features: Floats | None
    words: str
    digest: str
    trials: Callable[[int], Iterator[Trial]]
    floor: str
    most: int | None = None


class Reference(Protocol):
    """Real pictures, or what is known of them."""

    def prepare(self, metric: str) -> None:
        """Look that everything is there; raise a `SpecbenchError` that says what is not."""

    def pool(self, extractor: Features, pictures: Sequence[Picture]) -> Pool:
        """Return the reference for these generated pictures."""


def open_reference(place: str | None, count: int) -> Reference:
    """Return the reference that a parameter names.

    Args:
        place: "world", a folder of pictures, or an `.npz` file of statistics.
        count: How many renders "world" draws.
    """
    if place is None:
        return NoReference()
    if place == WORLD:
        return WorldReference(count)
    path = Path(place).expanduser()
    return StatisticsFile(path) if path.suffix == ".npz" else FolderReference(path)


class NoReference:
    """What there is until the user names one."""

    def prepare(self, metric: str) -> None:
        """Say what is missing.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"{metric} has no reference to compare with",
            "it takes a folder of pictures, an .npz file with mu and sigma, or 'world'",
            f"Add {option(metric, 'reference')}=PATH.",
        )

    def pool(self, extractor: Features, pictures: Sequence[Picture]) -> Pool:
        """Never reached: `prepare` comes first."""
        raise AssertionError("prepare() refuses")


class WorldReference:
    """What the embedded world draws for the same prompts, in the same proportions.

    Args:
        count: At least this many renders; every prompt gets the same number.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def prepare(self, metric: str) -> None:
        """Do nothing: the world is code."""

    def pool(self, extractor: Features, pictures: Sequence[Picture]) -> Pool:
        """Draw every prompt equally often, and the trials with other seeds.

        Raises:
            ConfigError: If a prompt is not of the world.
        """
        prompts = [picture.prompt for picture in pictures]
        times = -(-self._count // len(prompts))
        try:
            sample = Renders().pictures(prompts[:8], _WORLD_SEED)
        except (KeyError, ValueError) as error:
            raise ConfigError(
                "The reference 'world' draws captions of the embedded world only",
                f"it has no caption {error}",
                "Name a folder or a statistics file for other tasks.",
            ) from error
        drawn = hashlib.sha256(sample.tobytes()).hexdigest()
        digest = key_of("world", prompts, times, drawn, extractor.digest())

        def features(copies: int, seed: int) -> Floats:
            def make() -> Floats:
                asked = prompts * copies
                parts = []
                for start in range(0, len(asked), _GALLERY):
                    # A seed of its own for every gallery: prompts that recur in different
                    # galleries are different pictures.
                    own = seed * 1_000_003 + start
                    renders = Renders().pictures(asked[start : start + _GALLERY], own)
                    parts.append(extractor.extract(renders))
                return np.concatenate(parts)

            return cached(key_of(digest, copies, seed), make)

        everything = features(times, _WORLD_SEED)
        statistics = fit(everything)

        def trials(n: int) -> Iterator[Trial]:
            for index in range(TRIALS):
                real = features(1, _WORLD_SEED + 1 + index)[:n]
                yield Trial(real, statistics, everything)

        return Pool(
            statistics,
            everything,
            f"{len(everything)} renders of the same prompts, {times} of each",
            digest,
            trials,
            f"mean of {TRIALS} sets of further renders of the same prompts",
        )


class FolderReference:
    """A folder of real pictures, read with its sub-folders.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: list[Path] = []

    def prepare(self, metric: str) -> None:
        """List the pictures.

        Raises:
            ModelError: If there is no such folder or there are fewer than two pictures in it.
        """
        hint = f"Correct {option(metric, 'reference')}."
        if not self._path.is_dir():
            raise ModelError(
                f"{metric} cannot find the reference '{self._path}'",
                "it is neither 'world', nor a folder, nor an .npz file",
                hint,
            )
        files = (path for path in self._path.rglob("*") if path.suffix.lower() in SUFFIXES)
        self._files = sorted(files, key=lambda path: path.relative_to(self._path).as_posix())
        if len(self._files) < 2:
            raise ModelError(
                f"The reference '{self._path}' holds {len(self._files)} pictures",
                f"a distance takes at least two ({', '.join(sorted(SUFFIXES))})",
                hint,
            )

    def pool(self, extractor: Features, pictures: Sequence[Picture]) -> Pool:
        """Extract the features once; they are cached under the digest of the files."""
        content = hashlib.sha256()
        for file in self._files:
            content.update(hashlib.sha256(file.read_bytes()).digest())
        digest = key_of("folder", content.hexdigest(), extractor.digest())
        features = cached(digest, lambda: extractor.extract(map(read_picture, self._files)))
        return _pool_of(features, f"{len(features)} pictures of {self._path}", digest)


class StatisticsFile:
    """Mean and covariance of real pictures' features, as clean-fid, ADM and others publish them.

    Args:
        path: An `.npz` file with `mu` [D] and `sigma` [D, D], and perhaps `feats` [m, D]. Files
            are read without pickle.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._statistics: Gaussian | None = None
        self._features: Floats | None = None
        self._digest = ""

    def prepare(self, metric: str) -> None:
        """Read the file.

        Raises:
            ModelError: If it is missing, cannot be read, or holds something else.
        """
        hint = f"Correct {option(metric, 'reference')}."
        try:
            check_regular(self._path)
            self._digest = hashlib.sha256(self._path.read_bytes()).hexdigest()
            with np.load(self._path, allow_pickle=False) as arrays:
                names = [name for name in ("mu", "sigma", "feats") if name in arrays]
                held = {name: np.asarray(arrays[name], dtype=np.float64) for name in names}
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{metric} cannot read the statistics '{self._path}'", first_line(error), hint
            ) from error
        features = held.get("feats")
        if features is not None and features.ndim == 2 and len(features) > 1:
            self._features, self._statistics = features, fit(features)
            return
        mean, covariance = held.get("mu"), held.get("sigma")
        if mean is None or covariance is None or covariance.shape != (mean.size, mean.size):
            raise ModelError(
                f"'{self._path}' holds no statistics",
                "it needs mu [D] and sigma [D, D], or feats [n, D]",
                hint,
            )
        self._statistics = Gaussian(mean.reshape(-1), covariance, None)

    def pool(self, extractor: Features, pictures: Sequence[Picture]) -> Pool:
        """Return the statistics, if they are of such features.

        Raises:
            ModelError: If they have another number of features.
        """
        statistics = self._statistics
        assert statistics is not None, "prepare() comes first"
        if statistics.mean.size != extractor.width:
            raise ModelError(
                f"'{self._path}' describes {statistics.mean.size} features",
                f"{extractor.protocol} has {extractor.width}",
                "Use statistics of the same network.",
            )
        digest = key_of("statistics", self._digest)
        known = self._features
        if known is not None:
            return _pool_of(known, f"{len(known)} features of {self._path}", digest)

        def trials(n: int) -> Iterator[Trial]:
            source = np.random.default_rng(0)
            side = root(statistics.covariance)
            for _ in range(TRIALS):
                normal = source.standard_normal((n, statistics.mean.size))
                yield Trial(statistics.mean + normal @ side.T, statistics, None)

        return Pool(
            statistics,
            None,
            f"statistics of {self._path}",
            digest,
            trials,
            f"mean of {TRIALS} sets of n draws from the reference's own Gaussian",
        )


def _pool_of(features: Floats, words: str, digest: str) -> Pool:
    """Return a pool whose features are known."""
    return Pool(
        fit(features),
        features,
        words,
        digest,
        lambda n: splits(features, n, digest),
        f"mean of {TRIALS} random splits of the reference: n pictures against all others",
        len(features) // 2,
    )


def splits(features: Floats, n: int, seed: str) -> Iterator[Trial]:
    """Split a reference at random into n pictures and all others, again and again.

    Half of the reference is the most that a trial takes; with a smaller reference the trials are
    of that size, and their distances too large.
    """
    size = min(n, len(features) // 2)
    source = np.random.default_rng(int(seed[:16], 16))
    for _ in range(TRIALS):
        order = source.permutation(len(features))
        others = features[order[size:]]
        yield Trial(features[order[:size]], fit(others), others)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture as RGB, uint8 [H, W, 3].

    Raises:
        ModelError: If the file is no picture.
    """
    try:
        check_regular(path)
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise ModelError(f"'{path}' is not a picture that can be read", str(error)) from error
