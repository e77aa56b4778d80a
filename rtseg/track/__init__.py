"""Tracking objects through time: the tracker, each object's memory bank, scene cuts, and lost objects."""

from ..engine.policy import POLICIES, BankSize, Choice, Memory, get_policy, register_policy
from .bank import Bank
from .tracker import Tracker

__all__ = ["POLICIES", "Bank", "BankSize", "Choice", "Memory", "Tracker", "get_policy", "register_policy"]
