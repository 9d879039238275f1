"""The bus: how messages travel, on a real nats-server or in memory under the same laws."""
