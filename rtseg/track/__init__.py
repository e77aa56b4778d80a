"""Tracking objects through time: the tracker, each object's memory bank, scene cuts, and lost objects."""

from ..engine.policy import POLICIES, BankSize, Choice, Memory, get_policy, register_policy
from .bank import Bank
from .proposal import Proposals
from .tracker import Tracker

__all__ = ["POLICIES", "Bank", "BankSize", "Choice", "Memory", "Proposals", "Tracker", "get_policy", "register_policy"]
