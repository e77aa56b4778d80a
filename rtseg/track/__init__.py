"""Objects through time: the tracker, the memory of each object, and the policies that choose what it keeps."""

from ..engine.policy import POLICIES, Choice, Memory, Size, get_policy
from .bank import Bank
from .tracker import Tracker

__all__ = ["POLICIES", "Bank", "Choice", "Memory", "Size", "Tracker", "get_policy"]
