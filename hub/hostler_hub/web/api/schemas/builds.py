"""Answers about builds, their steps, and the files they leave."""

from hostler_hub.builds.views import (
    ArtifactPage,
    ArtifactView,
    BuildPage,
    BuildView,
    StepView,
    StoredFileView,
    WhyNot,
)
from hostler_hub.specs.states import (
    BuildState,
    StepState,
)

__all__ = [
    "ArtifactPage",
    "ArtifactView",
    "BuildPage",
    "BuildState",
    "BuildView",
    "StepState",
    "StepView",
    "StoredFileView",
    "WhyNot",
]
