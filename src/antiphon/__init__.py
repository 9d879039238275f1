"""Antiphon: federated search and durable actions across the systems you already run, over NATS.

The public face: `Node` answers, `Client` asks; everything else is behind them.
"""

from antiphon.client import Client
from antiphon.messages.handler import Counts, Found, Hit, Query
from antiphon.messages.lane import Statistics
from antiphon.messages.search import SearchAnswer
from antiphon.node import Node

__all__ = ["Client", "Counts", "Found", "Hit", "Node", "Query", "SearchAnswer", "Statistics"]
