"""See why an image model is robust: decision boundaries and curves as matplotlib figures."""

from importlib.metadata import version

from robust_viz.boundary import BoundaryGrid as BoundaryGrid
from robust_viz.boundary import DecisionBoundary as DecisionBoundary
from robust_viz.boundary import decision_boundaries as decision_boundaries
from robust_viz.boundary import decision_boundary as decision_boundary
from robust_viz.curves import AccuracyCurve as AccuracyCurve
from robust_viz.curves import accuracy_curves as accuracy_curves
from robust_viz.curves import accuracy_vs_eps as accuracy_vs_eps
from robust_viz.figures import add_figure as add_figure
from robust_viz.figures import write_figures as write_figures
from robust_viz.heatmaps import corruption_heatmap as corruption_heatmap

__version__ = version("robust-viz")

__all__ = [
    "AccuracyCurve",
    "BoundaryGrid",
    "DecisionBoundary",
    "__version__",
    "accuracy_curves",
    "accuracy_vs_eps",
    "add_figure",
    "corruption_heatmap",
    "decision_boundaries",
    "decision_boundary",
    "write_figures",
]
