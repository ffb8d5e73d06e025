"""What a model, and people, said about one of the model-vs-human sets."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from robust_bench.answers import Answers
from robust_bench.datasets.human_responses import Response, trials
from robust_bench.datasets.stimulus import CATEGORIES, condition_name, stimulus
from robust_bench.metrics import LEFT_OUT_CONDITIONS, kept_conditions
from robust_bench.metrics.human_sets import Trials

LEFT_OUT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        dataset: tuple(condition_name(condition) for condition in conditions)
        for dataset, conditions in LEFT_OUT_CONDITIONS.items()
    }
)
"""Of every set, the conditions that no score uses, written as `condition_name` writes those of files."""


@dataclass(frozen=True, kw_only=True)
class SetAnswers:
    """What a model, and people, said about one set.

    Args:
        dataset: name of the set.
        benchmark: of its rows.
        aggregation: how the model's 1000 classes became 16, "mean" or "max".
        pictures: ids of those that the model saw, (n).
        labels: their categories, (n).
        decisions: the model's, (n).
        model: by condition and picture, whether the model is right.
        responses: of people, none where they are not at hand.
    """

    dataset: str
    benchmark: str
    aggregation: str
    pictures: tuple[str, ...]
    labels: tuple[str, ...]
    decisions: tuple[str, ...]
    model: Trials
    responses: Sequence[Response] = ()

    @functools.cached_property
    def people(self) -> Mapping[str, Trials]:
        """By person, condition and picture, whether the person is right; of the pictures that the model saw.

        A picture that could not be read was skipped, so people's answers to it have nothing to be compared with.
        """
        return {
            person: {
                condition: {picture: right for picture, right in answered.items() if picture in self.model[condition]}
                for condition, answered in conditions.items()
                if condition in self.model
            }
            for person, conditions in trials(self.responses).items()
        }

    @property
    def kept(self) -> tuple[str, ...]:
        """The conditions that scores use.

        Raises:
            ValueError: if there are none.
        """
        return kept_conditions(self.dataset, list(self.model), LEFT_OUT)


def set_answers(dataset: str, aggregation: str, said: Answers, responses: Sequence[Response] = ()) -> SetAnswers:
    """Sort what a model said about the pictures of a set by what their names tell.

    Args:
        dataset: name of the set.
        aggregation: how the model's 1000 classes became 16.
        said: by the model, of pictures with names.
        responses: of people to the same pictures.

    Raises:
        ValueError: if a name is not one of the set's.
    """
    shown = [stimulus(dataset, name) for name in said.names or ()]
    model: dict[str, dict[str, bool]] = {}
    for each, right in zip(shown, said.right.tolist(), strict=True):
        model.setdefault(each.condition, {})[each.id] = right
    return SetAnswers(
        dataset=dataset,
        benchmark=said.benchmark,
        aggregation=aggregation,
        pictures=tuple(each.id for each in shown),
        labels=tuple(CATEGORIES[label] for label in said.labels.tolist()),
        decisions=tuple(CATEGORIES[decision] for decision in said.predictions.tolist()),
        model=model,
        responses=responses,
    )
