"""`MemoryClassifier`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from raremem.adapters.sklearn import files, temperatures
from raremem.adapters.sklearn.held_out import held_out
from raremem.adapters.sklearn.labels import check_kind, label_of_unknown, together
from raremem.adapters.sklearn.learned_map import LearnedMap, learn, unit
from raremem.adapters.sklearn.lookups import joined
from raremem.adapters.sklearn.results import Contents, Neighbors
from raremem.adapters.sklearn.store import ExampleStore
from raremem.adapters.sklearn.unknown import ConformalThreshold, evidence
from raremem.config import MemoryConfig, shown
from raremem.errors import ForgetError
from raremem.state import Lookup

Array = NDArray[Any]


class MemoryClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier for vectors of a frozen encoder: classes come and go at any time, without a gradient step.

    Every example is a (key, value) of a memory. A question's class probabilities are the summed weights of its nearest examples
    (rule 15); a new class is one `partial_fit` away. Rows are scaled to length 1 (rule 1); one of zeros is not learned.

    Args:
        write: "keep" every example, or "merge" one with its nearest if that has its label (rules 4 and 13).
        neighbors: how many examples an answer is made of.
        slots: how many examples are held; older ones are evicted (rule 5). None: as many as come.
        temperature: the factor on similarities before the softmax over neighbors; 0: all neighbors have the same weight. None:
            the one nearest to 20 whose negative log-likelihood (nll) of the examples, each asked of the others, is close to the
            least; if there is a learned map, of the rows held out. `partial_fit` chooses again when there are twice as many
            examples or classes.
        projection: None, or "learned": `fit` trains a linear map of the rows through the memory's loss, and takes it if rows
            that were held out have a smaller nll with it. Classes that come later are mapped by it as they are.
        unknown: None, or the share of known rows that may be refused, in (0, 1): others are answered `unknown_label`. The
            threshold is from rows held out by `fit`, then from the latest rows of known classes that `partial_fit` was given,
            each asked before it is learned.
        unknown_label: by default "unknown" among strings, and -1 among numbers.
        backend: "numpy", "torch" or "jax".
        random_state: of the map's training, and of the memory's age noise.

    Attributes:
        classes_: sorted labels.
        n_features_in_, feature_names_in_: as scikit-learn has them.
        map_: the `LearnedMap`, or None.
        temperature_: the temperature in use.

    >>> import numpy as np
    >>> classifier = MemoryClassifier().fit([[1.0, 0.0], [0.0, 1.0]], ["right", "up"])
    >>> classifier.partial_fit([[-1.0, 0.0]], ["left"]).predict([[-0.9, 0.1], [0.2, 0.9]])
    array(['left', 'up'], dtype='<U5')
    """

    _chosen_at: tuple[int, int]
    """How many examples and classes there were when the temperature was chosen."""

    def __init__(
        self,
        *,
        write: str = "keep",
        neighbors: int = 256,
        slots: int | None = None,
        temperature: float | None = None,
        projection: str | None = None,
        unknown: float | None = None,
        unknown_label: Any = None,
        backend: str = "numpy",
        random_state: Any = None,
    ) -> None:
        self.write = write
        self.neighbors = neighbors
        self.slots = slots
        self.temperature = temperature
        self.projection = projection
        self.unknown = unknown
        self.unknown_label = unknown_label
        self.backend = backend
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> MemoryClassifier:
        """Forget everything and learn these.

        Args:
            X: [N, features], finite.
            y: [N] labels: strings, whole numbers or booleans.

        Raises:
            ConfigError, ValueError: a parameter or the data is none.
        """
        with self._whole():
            self._check_parameters()
            X, y = self._checked(X, y, reset=True)
            generator = check_random_state(self.random_state)
            seed = int(generator.randint(2**31 - 1))
            self._begin()
            self.classes_, labels = np.unique(y, return_inverse=True)
            self._numbers = np.arange(len(self.classes_))
            held = None if self.projection is None else self._choose_map(unit(X).astype(np.float32), labels, generator, seed)
            self._store = self._filled_store(self._keys(X), labels, seed)
            if held is None:
                self._choose_temperature()
            if self._threshold is not None and not self._threshold.window:  # else the choice of the temperature has set it
                self._threshold.replace(self._evidence(self._store.left_out()[0] if held is None else held))
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> MemoryClassifier:
        """Learn these too, without a gradient step. Labels may be new.

        Args:
            X: [N, features], as for `fit`.
            y: [N] labels, of the kind of the first.
            classes: labels that are to be in `classes_` though they have no example yet; scikit-learn's habit, not needed.
        """
        with self._whole():
            begins = not hasattr(self, "_store")
            if begins:
                self._check_parameters()
            X, y = self._checked(X, y, reset=begins)
            announced = y[:0] if classes is None or not np.size(classes) else np.atleast_1d(classes)
            check_kind("classes", announced, y)
            if begins:
                self._begin()
                self.classes_, self._numbers = y[:0], np.arange(0)
                seed = int(check_random_state(self.random_state).randint(2**31 - 1))
                self._store = ExampleStore(self.backend, self._config(X.shape[1], seed, len(X)), self.slots is None)
            self.classes_, y, announced = together(self.classes_, y, announced)
            known = np.isin(y, self.classes_[:0] if self._threshold is None else self.classes_[self._has_examples()])
            self._enter(np.concatenate([y, announced]))
        found = list(self._store.write(self._keys(X), self._numbers[np.searchsorted(self.classes_, y)]))
        if self._threshold is not None and known.any():
            scores = self._evidence(joined(found))
            self._threshold.add(scores[known & np.isfinite(scores)])
        self._choose_temperature()
        return self

    def predict(self, X: Any) -> Array:
        """The likeliest label of each row [N], or `unknown_label`."""
        X = self._asked(X)
        found = joined(self._store.answer(self._keys(X)))
        answers = self.classes_[self._probabilities(found).argmax(axis=1)]
        if self._threshold is None:
            return answers
        refused = self._evidence(found) < self._threshold.value
        return np.where(refused, *reversed(together(answers, np.asarray(label_of_unknown(self.unknown_label, self.classes_)))))

    def predict_proba(self, X: Any) -> Array:
        """The share of each class [N, classes] in the weights of the neighbors, in the order of `classes_`; f64."""
        X = self._asked(X)
        return self._probabilities(joined(self._store.answer(self._keys(X))))

    def evidence(self, X: Any) -> Array:
        """How well each row [N] is known: the log of the summed, unnormalised weights of its likeliest class; f32.

        `predict` refuses a row with less than `threshold_`.
        """
        X = self._asked(X)
        return self._evidence(joined(self._store.answer(self._keys(X))))

    @property
    def threshold_(self) -> float:
        """The least evidence that is not refused; -inf: nothing is."""
        check_is_fitted(self, "classes_")
        return -np.inf if self._threshold is None else self._threshold.value

    def calibrate(self, X: Any) -> MemoryClassifier:
        """Work the threshold out from these rows, of known classes but never learned, instead of those that `fit` held out.

        A `partial_fit` that chooses another temperature works it out anew, from the examples.

        Raises:
            ValueError: `unknown` is None.
        """
        X = self._asked(X)
        if self._threshold is None:
            raise ValueError("unknown=None: expected the share of known rows that may be refused, say unknown=0.05.")
        self._threshold.replace(self._evidence(joined(self._store.answer(self._keys(X)))))
        return self

    def kneighbors(self, X: Any, n_neighbors: int | None = None) -> Neighbors:
        """The examples nearest to each row, and so why it is answered as it is.

        Args:
            X: [N, features].
            n_neighbors: how many; by default `neighbors`.
        """
        X = self._asked(X)
        found = joined(self._store.answer(self._keys(X), n_neighbors))
        place = np.zeros(self._numbers.max(initial=0) + 1, np.int64)
        place[self._numbers] = np.arange(len(self._numbers))
        ids = np.where(found.slots < 0, -1, self._store.ids[found.slots])
        return Neighbors(ids, self.classes_[place[found.values]], found.similarities)

    def forget(self, labels: Any = None, *, ids: Any = None, older_than: int | None = None) -> int:
        """Forget examples: no answer is made of them, and no byte of their rows is left, here or in files saved later.

        What had merged with them goes too. A label that has no example left is no longer in `classes_`. A learned map, the
        temperature and the threshold are what they were: numbers that these examples, among others, had an effect on.

        Args:
            labels: one label or several.
            ids: of examples, as `kneighbors` gives them.
            older_than: in updates: examples written or hit longer ago.

        Returns:
            How many slots were emptied.

        Raises:
            ValueError: a label is not in `classes_` or of another kind, ids are no whole numbers, or nothing is named.
        """
        check_is_fitted(self, "classes_")
        if labels is None and ids is None and older_than is None:
            raise ForgetError("nothing is named; expected labels, ids= or older_than=. To forget all, name `classes_`.")
        named: dict[str, Any] = {}
        if labels is not None:
            labels = np.atleast_1d(labels)
            check_kind("labels", labels, self.classes_)
            if not np.isin(labels, self.classes_).all():
                raise ValueError(f"labels={shown(labels.tolist())}: expected some of `classes_`.")
            named["values"] = self._numbers[np.searchsorted(self.classes_, labels)].astype(np.int32)
        if ids is not None:
            ids = np.atleast_1d(ids)
            if ids.size and ids.dtype.kind not in "iu":
                raise ValueError(f"ids is of dtype {ids.dtype}; expected whole numbers, as `kneighbors` gives them.")
            named["slots"] = np.isin(self._store.ids, ids) & (self._store.ids >= 0)
        if older_than is not None:
            named["older_than"] = older_than
        count = self._store.forget(**named)
        held = self._has_examples()
        self.classes_, self._numbers = self.classes_[held], self._numbers[held]
        now = self._store.filled, len(self.classes_)
        self._chosen_at = min(self._chosen_at[0], now[0]), min(self._chosen_at[1], now[1])
        return count

    def contents(self) -> Contents:
        """What is in each slot: copies."""
        check_is_fitted(self, "classes_")
        store = self._store
        labels = dict(zip(self._numbers.tolist(), self.classes_.tolist(), strict=True))
        return Contents(store.config, store.backend.to_numpy(store.state), store.ids.copy(), labels, store.grows)

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to a file without pickle (safetensors), whole or not at all.

        To the Hugging Face Hub: `huggingface_hub.upload_file(path_or_fileobj=path, path_in_repo=name, repo_id=repo)`.

        Raises:
            ValueError: labels are of a kind that JSON has not.
            OSError: the file cannot be written.
        """
        check_is_fitted(self, "classes_")
        files.save(path, self)

    @classmethod
    def load(cls, path: str | PathLike[str], backend: str | None = None) -> MemoryClassifier:
        """What `save` wrote. From the Hugging Face Hub: `load(huggingface_hub.hf_hub_download(repo, name))`.

        Args:
            path: the file.
            backend: on which it is to run; by default on which it ran. One of your own must be named: a file runs nothing.

        Raises:
            CheckpointError: the file is damaged, or no classifier.
            UnknownBackendError: there is no such backend.
            MissingPackageError: that backend's framework is not installed; another `backend` can read the file too.
            OSError: it cannot be read.
        """
        return files.load(cls, path, backend)

    def __len__(self) -> int:
        """How many slots are filled."""
        check_is_fitted(self, "classes_")
        return self._store.filled

    def _check_parameters(self) -> None:
        if self.projection not in (None, "learned"):
            raise ValueError(f"projection={shown(self.projection)}: expected None or 'learned'.")
        if self.unknown is not None and not 0 < self.unknown < 1:
            raise ValueError(f"unknown={shown(self.unknown)}: expected None, or a share in (0, 1).")
        temperature = temperatures.DEFAULT if self.temperature is None else self.temperature
        slots = 1 if self.slots is None else self.slots
        MemoryConfig(slots, 1, self.neighbors, softmax_temperature=temperature, write=self.write)

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[Array, Array]:
        X, y = validate_data(self, X, y, reset=reset, dtype=[np.float64, np.float32])
        check_kind("y", y, y if reset else self.classes_)
        target = type_of_target(y, input_name="y", raise_unknown=True)
        if target not in ("binary", "multiclass"):
            raise ValueError(f"Unknown label type: {target}; expected labels y [N]: strings, whole numbers or booleans.")
        return X, y

    def _asked(self, X: Any) -> Array:
        check_is_fitted(self, "classes_")
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        if not len(self.classes_):
            raise ValueError("everything was forgotten; learn something before asking.")
        return X

    def _config(self, key_dim: int, seed: int, rows: int) -> MemoryConfig:
        return MemoryConfig(
            slots=max(rows, 1) if self.slots is None else self.slots,
            key_dim=key_dim,
            neighbors=self.neighbors,
            softmax_temperature=self.temperature_,
            seed=seed,
            write=self.write,
        )

    def _keys(self, X: Array) -> Array:
        rows = unit(X).astype(np.float32)
        return rows if self.map_ is None else self.map_(rows)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """What is within happens, or the attributes are what they were before it."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _begin(self) -> None:
        """What a classifier is before its first example."""
        self.map_: LearnedMap | None = None
        self._threshold = None if self.unknown is None else ConformalThreshold(self.unknown)
        self.temperature_ = temperatures.DEFAULT if self.temperature is None else self.temperature
        self._chosen_at = 0, 0

    def _filled_store(self, keys: Array, labels: Array, seed: int) -> ExampleStore:
        store = ExampleStore(self.backend, self._config(keys.shape[1], seed, len(keys)), self.slots is None)
        for _ in store.write(keys, labels):
            pass
        return store

    def _choose_map(self, rows: Array, labels: Array, generator: np.random.RandomState, seed: int) -> Lookup | None:
        """Learn a map, and keep it with its temperature if rows that are held out have a smaller nll with it.

        Returns:
            What they found, if it is kept.
        """
        choices = temperatures.CHOICES if self.temperature is None else (self.temperature,)
        held = held_out(rows, labels, generator, lambda keys, values: self._filled_store(keys, values, seed))
        if held is None:
            return None
        with_map, without_map = (temperatures.best(found, held.labels, choices) for found in (held.mapped, held.plain))
        if with_map.loss >= without_map.loss:
            return None
        self.map_, self.temperature_ = learn(rows, labels, generator), with_map.temperature
        return held.mapped

    def _choose_temperature(self) -> None:
        """Choose it anew if there are twice as many examples or classes as the last time; then the threshold follows."""
        size = self._store.filled, len(self.classes_)
        grown = any(now >= 2 * max(then, 1) for now, then in zip(size, self._chosen_at, strict=True))
        if self.temperature is not None or self.map_ is not None or not grown:
            return
        self._chosen_at = size
        found, labels = self._store.left_out()
        before, self.temperature_ = self.temperature_, temperatures.best(found, labels).temperature
        self._store.config = replace(self._store.config, softmax_temperature=self.temperature_)
        if self._threshold is not None and (self.temperature_ != before or not self._threshold.window):
            self._threshold.replace(self._evidence(found))

    def _enter(self, labels: Array) -> None:
        """Give a number to each label that is new: the lowest that is free."""
        new = np.setdiff1d(labels, self.classes_)
        if len(new):
            free = np.setdiff1d(np.arange(len(self._numbers) + len(new)), self._numbers)[: len(new)]
            classes, numbers = np.concatenate([self.classes_, new]), np.concatenate([self._numbers, free])
            order = np.argsort(classes, kind="stable")
            self.classes_, self._numbers = classes[order], numbers[order]

    def _has_examples(self) -> Array:
        """Which classes [classes] have an example."""
        return np.isin(self._numbers, list(self._store.values()))

    def _probabilities(self, found: Lookup) -> Array:
        scores = found.scores(int(self._numbers.max()) + 1).astype(np.float64)[:, self._numbers]
        total = scores.sum(axis=1, keepdims=True)
        return np.where(total > 0, scores / np.where(total > 0, total, 1), 1 / len(self.classes_))

    def _evidence(self, found: Lookup) -> Array:
        return evidence(found, self.temperature_, int(self._numbers.max()) + 1)
