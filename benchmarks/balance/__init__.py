"""How balancing strategies fare when one instance of five is slow, fails at once, or stalls: virtual time, a seed."""
