"""Antiphon: federated search and durable actions across the systems you already run, over NATS."""
