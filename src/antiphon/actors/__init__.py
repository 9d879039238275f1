"""The actors, one module each: state and conversations, no algorithm inside."""
