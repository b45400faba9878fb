"""How several losses become one update. Needs torch, numpy and scipy alone; works in anyone's own training loop."""

from polyface.weighting.base import WEIGHTINGS, Combined, Context, Fixed, Weighting
from polyface.weighting.stopping import TaskStopping, criterion

__all__ = ["WEIGHTINGS", "Combined", "Context", "Fixed", "TaskStopping", "Weighting", "criterion"]
